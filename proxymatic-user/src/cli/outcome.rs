//! The outcome of a command, which decides its exit code.

/// The outcome of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Well,
    Unwell,
    /// A check failed.
    Unknown,
}
