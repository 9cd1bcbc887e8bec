//! Errors of commands.

/// One sentence: the fault, and the accepted form. A refused command changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CommandError(pub String);

impl CommandError {
    pub(super) fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }

    pub(super) fn no_app(id: &str) -> Self {
        Self(format!("there is no app {id:?}: POST /sim/apps makes one, GET /sim/state lists them"))
    }

    pub(super) fn no_task(id: &str) -> Self {
        Self(format!("there is no task {id:?} (any more): GET /sim/state lists the ids"))
    }
}
