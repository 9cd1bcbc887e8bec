//! The states of tasks as Mesos names them.

use crate::{model::TaskState, source::marathon::api::Task};

/// Returns the state of a task; `None` if this version does not know it.
pub(super) fn task_state(task: &Task) -> Option<TaskState> {
    match task.state.as_str() {
        // Marathon 1.1.1 and earlier name no state, but list only tasks that have not ended.
        "" if task.started_at.is_empty() && task.health_check_results.is_empty() => Some(TaskState::Starting),
        "" => Some(TaskState::Running),
        word => mesos_state(word),
    }
}

/// Returns the state that a word of Mesos stands for; `None` if this version does not know the word.
pub(super) fn mesos_state(word: &str) -> Option<TaskState> {
    Some(match word {
        "TASK_RUNNING" => TaskState::Running,
        "TASK_STAGING" | "TASK_STARTING" => TaskState::Starting,
        "TASK_KILLING" => TaskState::Killing,
        // Marathon 1.1 to 1.3 have no other word for unreachable, and list only lost tasks that may come back.
        "TASK_UNREACHABLE" | "TASK_LOST" => TaskState::Unreachable,
        "TASK_FINISHED"
        | "TASK_FAILED"
        | "TASK_KILLED"
        | "TASK_ERROR"
        | "TASK_DROPPED"
        | "TASK_GONE"
        | "TASK_GONE_BY_OPERATOR"
        | "TASK_UNKNOWN" => TaskState::Ended,
        _ => return None,
    })
}
