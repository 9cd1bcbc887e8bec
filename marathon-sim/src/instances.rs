//! Instances whose goal changes, and tasks that are replaced under their instance.

use std::sync::Arc;

use super::cluster::Cluster;
use super::error::CommandError;
use super::event::Event;
use super::event_sequences;
use super::task::{Place, Task, TaskState};

impl Cluster {
    /// Marathon decides to stop a task: the goal of the task changes, but not yet its state.
    pub fn kill(&mut self, task: &str) -> Result<(), CommandError> {
        let (id, mut it) = self.take_task(task)?;
        if !it.stopping {
            it.stopping = true;
            self.announce_end(&id, &it);
        }
        self.put_task(&id, it);
        Ok(())
    }

    /// Sets whether ends are announced from now on. Marathon has done so since 1.8; a Marathon that does not is the
    /// control of a measurement.
    pub fn announce(&mut self, announcements: bool) {
        self.announcements = announcements;
    }

    /// Returns whether an event tells that the goal of an instance has changed.
    pub(super) fn announces_ends(&self) -> bool {
        self.announcements && self.agents.dialect.announces_ends()
    }

    /// Emits the event that the goal of an instance has changed. The goal is not in its JSON. Before 1.8 there is none.
    pub(super) fn announce_end(&mut self, id: &str, task: &Task) {
        if self.announces_ends() {
            self.events.push(Event::instance_changed(self.now, id, task, task.state.condition()));
        }
    }

    /// A task ends, and Marathon starts it again under its instance: `..._app.2` after `..._app.1`. Returns its id.
    ///
    /// The new task is listed with the results of the one before it until each check has a result again, and no event
    /// tells when. Before 1.8 it has an instance of its own, and no results.
    pub fn restart(&mut self, task: &str, place: &Place) -> Result<String, CommandError> {
        let (id, it) = self.find_task(task)?;
        let (id, version) = (id.to_owned(), Arc::clone(&it.version));
        self.now = self.now.next(); // the task starts after the results of the one before it
        let mut next = self.agents.place(&id, &version, std::slice::from_ref(place), self.now)?.remove(0);
        let (_, mut it) = self.take_task(task)?;
        it.state = TaskState::TaskKilled;
        self.events.extend(event_sequences::state(self.now, &id, &it));
        let keeps_instance = self.agents.dialect.announces_ends();
        if keeps_instance {
            (next.id, next.instance) = (next_attempt(&it.id), it.instance);
        }
        self.events.extend(event_sequences::launched(self.now, &id, &next));
        if keeps_instance {
            next.health = it.health;
        }
        let started = next.id.clone();
        self.put_task(&id, next);
        Ok(started)
    }
}

/// Returns the id of the next task of an instance: `..._app.2` after `..._app.1`.
fn next_attempt(task: &str) -> String {
    let (instance, attempt) = task.rsplit_once('.').unwrap_or((task, "1"));
    format!("{instance}.{}", attempt.parse::<u32>().unwrap_or(1) + 1)
}
