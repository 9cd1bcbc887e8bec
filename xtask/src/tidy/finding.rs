//! One broken rule in one place.

/// A broken rule.
#[derive(Debug, PartialEq)]
pub(super) struct Finding {
    /// The number of the line, from 1 on.
    pub(super) line: usize,
    /// What is wrong, and the remedy.
    pub(super) what: String,
}
