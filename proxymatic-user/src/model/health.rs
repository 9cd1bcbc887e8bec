//! Decides from the status of a task whether it may take new connections.

use super::{State, Weight};

/// The state of a task according to Mesos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// The task is being started.
    Starting,
    /// The task runs.
    Running,
    /// The task got the order to stop and has not stopped yet.
    Killing,
    /// The Mesos master lost contact with the task's agent: the task may still run.
    Unreachable,
    /// The task does not run, and will not run again.
    Ended,
}

/// The combined result of a task's health checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// The app has no health checks.
    Unchecked,
    /// There are checks, but no result yet.
    Unknown,
    /// There is at least one result, and all results are alive.
    Alive,
    /// At least one result is not alive.
    Failing,
}

/// Everything that decides the state of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskStatus {
    /// The state according to Mesos.
    pub condition: TaskState,
    /// The result of the health checks.
    pub health: Health,
    /// Whether the readiness check has passed; true if no deployment waits for one.
    pub ready: bool,
}

impl TaskStatus {
    /// Returns the state of a task with this weight, regardless of other tasks; `None` if the task has ended.
    pub fn state(self, weight: Weight) -> Option<State> {
        match (self.condition, self.health) {
            (TaskState::Ended, _) => None,
            _ if weight.get() == 0 => Some(State::Draining),
            (TaskState::Starting, _) => Some(State::Warming),
            (TaskState::Killing | TaskState::Unreachable, _) | (TaskState::Running, Health::Failing) => {
                Some(State::Draining)
            }
            (TaskState::Running, Health::Unknown) => Some(State::Warming),
            (TaskState::Running, Health::Unchecked | Health::Alive) if self.ready => Some(State::Active),
            (TaskState::Running, Health::Unchecked | Health::Alive) => Some(State::Warming),
        }
    }
}

/// Returns whether the Mesos master can reach none of a service's tasks. Then the connection between master and agents
/// is broken, which proves nothing about the tasks: treat the unreachable ones as running.
///
/// Replacements that are still starting and tasks that are stopping do not count: Marathon starts a replacement as soon
/// as a task becomes unreachable.
pub fn all_unreachable(tasks: impl IntoIterator<Item = TaskState>) -> bool {
    let mut unreachable = false;
    for condition in tasks {
        match condition {
            TaskState::Running => return false,
            TaskState::Unreachable => unreachable = true,
            TaskState::Starting | TaskState::Killing | TaskState::Ended => {}
        }
    }
    unreachable
}

#[cfg(test)]
mod tests {
    use super::{Health::*, TaskState::*, *};

    #[test]
    fn task_status_decides_the_state() {
        for (condition, health, ready, state) in [
            (Running, Unchecked, true, Some(State::Active)),
            (Running, Alive, true, Some(State::Active)),
            (Running, Unchecked, false, Some(State::Warming)),
            (Running, Alive, false, Some(State::Warming)),
            (Running, Unknown, true, Some(State::Warming)),
            (Running, Failing, true, Some(State::Draining)),
            (Running, Failing, false, Some(State::Draining)),
            (Killing, Alive, true, Some(State::Draining)),
            (Killing, Unknown, true, Some(State::Draining)),
            (Unreachable, Alive, true, Some(State::Draining)),
            (Starting, Unchecked, true, Some(State::Warming)),
            (Starting, Failing, true, Some(State::Warming)),
            (Ended, Alive, true, None),
        ] {
            let status = TaskStatus { condition, health, ready };
            assert_eq!(status.state(Weight::default()), state, "{status:?}");
            let without_weight = state.map(|_| State::Draining);
            assert_eq!(status.state(Weight::new(0).unwrap()), without_weight, "{status:?} without weight");
        }
    }

    #[test]
    fn all_unreachable_needs_an_unreachable_and_no_running_task() {
        for (tasks, expected) in [
            (vec![Unreachable, Unreachable], true),
            (vec![Unreachable, Running], false),
            (vec![Unreachable, Starting, Killing], true),
            (vec![Starting, Killing], false),
            (vec![], false),
        ] {
            assert_eq!(all_unreachable(tasks.iter().copied()), expected, "{tasks:?}");
        }
    }
}
