//! What a test returns, so that `?` ends it as a failed assertion does: at once, with the line, with logs echoed.

use std::fmt::Display;

/// The result of a test.
pub type TestResult = Result<(), Failure>;

/// Never made: the conversion that `?` asks for panics, so that guards dropped on the way out know of the failure.
#[derive(Debug)]
pub enum Failure {}

impl<E: Display> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        panic!("{error:#}")
    }
}
