//! Ends that Marathon announces: which instances it is about to stop. Pure: the clock is an argument.
//!
//! Marathon 1.8 and later send `instance_changed_event` if the condition or the goal of an instance changes, and an event
//! does not name the goal. So a `Running` of an instance that was running already means that its goal has changed: Marathon
//! will stop it. The event comes before SIGTERM reaches the task, by 20 to 270 ms with Mesos.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::model::{Backend, Snapshot, State};

/// How long an instance counts as about to end, if nothing else confirms it.
pub(super) const ANNOUNCED: Duration = Duration::from_secs(5);
/// The most instances whose condition is remembered, and the most that are about to end.
const MAX_INSTANCES: usize = 10_000;

/// A change of an instance, as an event describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InstanceChanged {
    /// The id of the instance. The ids of its tasks begin with it.
    pub(super) instance: String,
    /// Whether it runs.
    pub(super) is_running: bool,
    /// The time of the event in milliseconds since 1970.
    pub(super) at: Option<i64>,
}

/// The instances that are about to end.
#[derive(Debug, Default)]
pub(super) struct AnnouncedEnds {
    /// The instances whose last event was `Running`, and the time of that event.
    running: BTreeMap<String, i64>,
    /// The instances that are about to end, and since when.
    ending: BTreeMap<String, Instant>,
    /// Tasks that became active a short time ago. The event that their instance runs may still be on its way.
    recent: BTreeMap<String, Instant>,
}

impl AnnouncedEnds {
    /// Notes an event. Returns whether it announces an end.
    pub(super) fn changed(&mut self, changed: InstanceChanged, latest: Option<&Snapshot>, now: Instant) -> bool {
        let InstanceChanged { instance, is_running, at } = changed;
        if !is_running {
            self.running.remove(&instance);
            self.ending.remove(&instance);
            return false;
        }
        let Some(at) = at else { return false };
        let announced = match self.running.get(&instance) {
            // An event may come twice.
            Some(before) => at > *before,
            None => latest.is_some_and(|latest| self.is_active(&instance, latest, now)),
        };
        if self.running.len() < MAX_INSTANCES {
            self.running.insert(instance.clone(), at);
        }
        if announced && self.ending.len() < MAX_INSTANCES {
            self.ending.insert(instance, now);
        }
        announced
    }

    /// Forgets the conditions of all instances: events may have been missed.
    pub(super) fn stream_lost(&mut self) {
        self.running.clear();
    }

    /// Notes that a task has become active by an event.
    pub(super) fn started(&mut self, task: &str, now: Instant) {
        if self.recent.len() < MAX_INSTANCES {
            self.recent.insert(task.to_owned(), now);
        }
    }

    /// Notes which tasks have become active between two snapshots.
    pub(super) fn published(&mut self, before: &Snapshot, fresh: &Snapshot, now: Instant) {
        self.recent.retain(|_, since| now.saturating_duration_since(*since) < ANNOUNCED);
        self.ending.retain(|_, since| now.saturating_duration_since(*since) < ANNOUNCED);
        for (key, service) in &fresh.services {
            let before = before.services.get(key);
            if before.is_some_and(|before| std::sync::Arc::ptr_eq(before, service)) {
                continue;
            }
            let was_active = |task: &str| {
                let mut backends = before.iter().flat_map(|it| &it.backends);
                backends.any(|it| it.task == task && it.state == State::Active)
            };
            for it in service.backends.iter().filter(|it| it.state == State::Active && !was_active(&it.task)) {
                self.recent.insert(it.task.clone(), now);
            }
        }
    }

    /// Drains the tasks of instances that are about to end. Returns whether the snapshot changed.
    pub(super) fn drain(&self, snapshot: &mut Snapshot) -> bool {
        let mut changed = false;
        if self.ending.is_empty() {
            return changed;
        }
        let ends = |it: &Backend| it.state == State::Active && self.is_ending(&it.task);
        for service in snapshot.services.values_mut() {
            // Only a service that changes is copied. The others stay shared.
            if service.backends.iter().any(ends) {
                changed = true;
                let service = std::sync::Arc::make_mut(service);
                service.backends.iter_mut().filter(|it| ends(it)).for_each(|it| it.state = State::Draining);
            }
        }
        changed
    }

    /// Returns whether a task belongs to an instance that is about to end.
    pub(super) fn is_ending(&self, task: &str) -> bool {
        task.match_indices('.').any(|(end, _)| self.ending.contains_key(&task[..end]))
    }

    /// Returns whether a task of an instance has been active for longer than an event is on its way.
    fn is_active(&self, instance: &str, latest: &Snapshot, now: Instant) -> bool {
        let recent =
            |task: &str| self.recent.get(task).is_some_and(|since| now.saturating_duration_since(*since) < ANNOUNCED);
        let mut backends = latest.services.values().flat_map(|it| &it.backends);
        backends.any(|it| it.state == State::Active && belongs(&it.task, instance) && !recent(&it.task))
    }
}

/// Returns whether a task belongs to an instance: `INSTANCE.CONTAINER`, or `INSTANCE._app.ATTEMPT`.
pub(super) fn belongs(task: &str, instance: &str) -> bool {
    task.strip_prefix(instance).is_some_and(|rest| rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::IpAddr};

    use super::*;
    use crate::model::{Protocol, Service, ServiceKey, Weight};

    /// Returns a service with these tasks.
    fn snapshot(tasks: &[&str]) -> Snapshot {
        let backend = |task: &&str| Backend {
            task: (*task).into(),
            address: IpAddr::from([10, 0, 0, 1]),
            port: 1,
            weight: Weight::default(),
            maxconn: 0,
            state: State::Active,
        };
        let service = Service { backends: tasks.iter().map(backend).collect(), ..Service::default() };
        Snapshot {
            services: BTreeMap::from([(ServiceKey::host(1, Protocol::Tcp), service.into())]),
            warnings: Vec::new(),
        }
    }

    fn draining(ends: &AnnouncedEnds, tasks: &[&str]) -> Vec<String> {
        let mut snapshot = snapshot(tasks);
        ends.drain(&mut snapshot);
        let backends = snapshot.services.values().flat_map(|it| &it.backends);
        backends.filter(|it| it.state == State::Draining).map(|it| it.task.clone()).collect()
    }

    fn event(instance: &str, is_running: bool, at: i64) -> InstanceChanged {
        InstanceChanged { instance: instance.into(), is_running, at: Some(at) }
    }

    #[test]
    fn second_running_event_announces_an_end() {
        let (mut ends, now) = (AnnouncedEnds::default(), Instant::now());
        let tasks = ["a.i1._app.1", "a.i2._app.1", "p.i3.c", "p.i3.d"];
        for instance in ["a.i1", "a.i2", "p.i3"] {
            assert!(!ends.changed(event(instance, true, 5), None, now), "the first one");
            assert!(!ends.changed(event(instance, true, 5), None, now), "the same event twice");
        }
        assert_eq!(draining(&ends, &tasks), [""; 0]);
        assert!(ends.changed(event("a.i1", true, 6), None, now));
        assert_eq!(draining(&ends, &tasks), ["a.i1._app.1"]);
        assert!(ends.changed(event("p.i3", true, 6), None, now));
        assert_eq!(draining(&ends, &tasks), ["a.i1._app.1", "p.i3.c", "p.i3.d"]);
        assert!(!ends.changed(event("a.i1", false, 7), None, now), "it is being killed");
        assert!(!ends.changed(event("a.i1", true, 8), None, now), "the next task of the instance runs");
        assert_eq!(draining(&ends, &tasks), ["p.i3.c", "p.i3.d"]);
    }

    #[test]
    fn task_that_was_active_before_the_stream_is_announced_too() {
        let (mut ends, now) = (AnnouncedEnds::default(), Instant::now());
        let (old, both) = (snapshot(&["a.i1._app.1"]), snapshot(&["a.i1._app.1", "a.i2._app.1"]));
        ends.published(&old, &both, now);
        assert!(!ends.changed(event("a.i2", true, 5), Some(&both), now), "it runs since a moment");
        assert!(ends.changed(event("a.i1", true, 5), Some(&both), now));
        ends.stream_lost();
        assert!(ends.changed(event("a.i2", true, 5), Some(&both), now + ANNOUNCED));
        assert!(!ends.changed(event("a.i9", true, 5), Some(&both), now + ANNOUNCED));
    }

    #[test]
    fn announcement_without_an_end_is_over_after_five_seconds() {
        let (mut ends, now, tasks) = (AnnouncedEnds::default(), Instant::now(), ["a.i1._app.1"]);
        ends.changed(event("a.i1", true, 5), None, now);
        ends.changed(event("a.i1", true, 6), None, now);
        let same = snapshot(&tasks);
        ends.published(&same, &same, now + ANNOUNCED - Duration::from_millis(1));
        assert_eq!(draining(&ends, &tasks), tasks);
        ends.published(&same, &same, now + ANNOUNCED);
        assert_eq!(draining(&ends, &tasks), [""; 0]);
    }
}
