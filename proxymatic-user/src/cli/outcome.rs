//! The outcome of a command, which decides its exit code.

/// The outcome of a command that ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// No problem: exit code 0.
    Ok,
    /// The command found a problem: exit code 1.
    Problems,
    /// A check failed: exit code 2.
    CannotTell,
}
