//! The result type of tests: `?` ends a test as a failed assertion does, at once, with the line, and with logs echoed.

use std::fmt::Display;

/// The result of a test.
pub type TestResult = Result<(), Failure>;

/// Never constructed: the conversion that `?` calls panics, so that guards dropped on the way out see the failure.
#[derive(Debug)]
pub enum Failure {}

impl<E: Display> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        panic!("{error:#}")
    }
}
