//! From what is known of a task to whether it may be given new connections.

use super::{State, Weight};

/// What Mesos says a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// Is being started.
    Starting,
    /// Runs.
    Running,
    /// Was told to stop and has not stopped yet.
    Killing,
    /// Its agent has lost touch with the Mesos master: the task may run as before.
    Unreachable,
    /// Does not run, and will not run again.
    Ended,
}

/// What the health checks say of a task, taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// The app has no health checks.
    Unchecked,
    /// There are checks, and none has given a result yet.
    Unknown,
    /// There is at least one result, and all say alive.
    Alive,
    /// One result or more says not alive.
    Failing,
}

/// Everything that decides the state of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskStatus {
    /// What Mesos says it does.
    pub condition: TaskState,
    /// What its health checks say.
    pub health: Health,
    /// Whether its readiness check, where a deployment waits for one, has passed.
    pub ready: bool,
}

impl TaskStatus {
    /// The state of a task with that weight, on its own; `None` for one that has ended.
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

/// Whether none of a service's tasks can be reached by the Mesos master, so that the cut is between master and agents
/// and says nothing of the tasks: then the unreachable ones are to be taken as running.
///
/// Replacements that are only starting, and tasks that are stopping, do not count: Marathon starts a replacement as
/// soon as a task becomes unreachable.
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
    fn the_table_of_states() {
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
            let vitals = TaskStatus { condition, health, ready };
            assert_eq!(vitals.state(Weight::default()), state, "{vitals:?}");
            let without_weight = state.map(|_| State::Draining);
            assert_eq!(vitals.state(Weight::new(0).unwrap()), without_weight, "{vitals:?} without weight");
        }
    }

    #[test]
    fn a_service_is_cut_off_when_nothing_of_it_is_known_to_run() {
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
