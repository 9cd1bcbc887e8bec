//! Keeps what is known of tasks' health and readiness over a change of leader.
//!
//! Results live in the memory of Marathon's leader: a new one starts with none, and a checked task without results is
//! not to be sent anything. So when the results of a task vanish, the last ones stand in for them for a while. New
//! results of any kind take their place at once. And a task that was ready once stays ready: nothing but a deployment
//! asks for that, and a later one does not ask again.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::api::{App, ContainerStatus, HealthResult, Lenient, Listing, ReadinessResult};
use crate::model::{Snapshot, State};

/// How long at least the last results stand in.
const AT_LEAST: Duration = Duration::from_secs(60);
/// The interval of a health check that does not say it.
const INTERVAL: f64 = 60.0;
/// No check is awaited longer than that, whatever interval it says.
const AT_MOST: Duration = Duration::from_secs(3600);

/// The last results of every task that is listed.
#[derive(Debug, Default)]
pub(super) struct HealthCarryover(BTreeMap<String, Last>);

#[derive(Debug, Default)]
struct Last {
    results: Vec<HealthResult>,
    vanished: Option<Instant>,
    ready: bool,
}

impl HealthCarryover {
    /// Nothing was listed yet, but this is what was published by an agent before this one: tasks that got connections
    /// were alive and ready.
    pub(super) fn after(adopted: &Snapshot) -> Self {
        let backends = adopted.services.values().flat_map(|service| &service.backends);
        let active = backends.filter(|backend| backend.state == State::Active);
        let well = || Last { results: vec![HealthResult { alive: true }], vanished: None, ready: true };
        Self(active.map(|backend| (backend.task.clone(), well())).collect())
    }

    /// Puts the last results in where they have vanished, and remembers those that are there.
    pub(super) fn apply(&mut self, listing: &mut Listing, now: Instant) {
        let mut known = BTreeMap::new();
        for app in &mut listing.apps {
            let Lenient::Good(app) = app else { continue };
            known.extend(self.fill_app(app, now));
        }
        for pod in &mut listing.pods {
            let Lenient::Good(pod) = pod else { continue };
            for instance in &mut pod.instances {
                let Lenient::Good(instance) = instance else { continue };
                for container in &mut instance.containers {
                    let key = match container.container_id.as_str() {
                        "" => format!("{}.{}", instance.id, container.name),
                        id => id.to_owned(),
                    };
                    let last = fill_container(container, self.0.remove(&key).unwrap_or_default(), now);
                    known.insert(key, last);
                }
            }
        }
        self.0 = known;
    }

    /// The same for one app that was asked for alone. Of other apps' tasks nothing is forgotten.
    pub(super) fn over_app(&mut self, app: &mut App, now: Instant) {
        let known = self.fill_app(app, now);
        self.0.extend(known);
    }

    fn fill_app(&mut self, app: &mut App, now: Instant) -> Vec<(String, Last)> {
        let (hold, settled) = (hold(app), app.deployments.is_empty());
        let said: BTreeMap<_, _> = app.readiness_check_results.drain(..).map(|it| (it.task_id, it.ready)).collect();
        let (mut ready, mut known) = (said.clone(), Vec::new());
        for task in &mut app.tasks {
            let Lenient::Good(task) = task else { continue };
            let last = self.0.remove(&task.id).unwrap_or_default();
            let mut last = fill(&mut task.health_check_results, last, now, hold);
            match said.get(&task.id) {
                Some(said) => last.ready = *said,
                None if last.ready => drop(ready.insert(task.id.clone(), true)),
                None => last.ready = settled && task.state == "TASK_RUNNING",
            }
            known.push((task.id.clone(), last));
        }
        app.readiness_check_results =
            ready.into_iter().map(|(task_id, ready)| ReadinessResult { task_id, ready }).collect();
        known
    }
}

/// Puts the last results in if there are none and the last ones have not vanished for too long.
fn fill(results: &mut Vec<HealthResult>, last: Last, now: Instant, hold: Duration) -> Last {
    if !results.is_empty() {
        return Last { results: results.clone(), vanished: None, ..last };
    }
    let vanished = last.vanished.unwrap_or(now);
    if now.saturating_duration_since(vanished) >= hold {
        return Last { ready: last.ready, ..Last::default() };
    }
    results.clone_from(&last.results);
    Last { vanished: Some(vanished), ..last }
}

/// The same for a container of a pod. That its check has no result is said there in so many words.
fn fill_container(container: &mut ContainerStatus, last: Last, now: Instant) -> Last {
    let Some(health) = container.conditions.iter_mut().find(|it| it.is_health()) else { return last };
    let unreported = health.is_unreported();
    let mut results = if unreported { Vec::new() } else { vec![HealthResult { alive: health.value == "true" }] };
    let last = fill(&mut results, last, now, AT_LEAST);
    if unreported && let Some(result) = results.first() {
        health.value = result.alive.to_string();
        health.reason.clear();
        container.endpoints.iter_mut().for_each(|endpoint| endpoint.healthy = None);
    }
    last
}

/// How long it may take until every check of an app has a result again.
fn hold(app: &App) -> Duration {
    let intervals = app.health_checks.iter().map(|check| check.interval_seconds.unwrap_or(INTERVAL));
    let longest = intervals.fold(0.0, f64::max);
    Duration::try_from_secs_f64(2.0 * longest).unwrap_or(AT_MOST).clamp(AT_LEAST, AT_MOST)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{Backend, Protocol, Service, ServiceKey, Weight};

    /// The results of the only task after a listing in which it has `results`, `at` seconds after the start.
    fn see(carry: &mut HealthCarryover, start: Instant, at: u64, interval: f64, results: &[bool]) -> Vec<bool> {
        let results: Vec<_> = results.iter().map(|alive| json!({"alive": alive})).collect();
        let mut listing: Listing = serde_json::from_value(json!({"apps": [{"id": "/a",
            "healthChecks": [{"intervalSeconds": interval}], "tasks": [{"id": "t", "healthCheckResults": results}]}]}))
        .unwrap();
        carry.apply(&mut listing, start + Duration::from_secs(at));
        let Lenient::Good(app) = &listing.apps[0] else { panic!() };
        let Lenient::Good(task) = &app.tasks[0] else { panic!() };
        task.health_check_results.iter().map(|result| result.alive).collect()
    }

    #[test]
    fn results_that_vanish_stand_for_a_minute_and_new_ones_count_at_once() {
        let (mut carry, start) = (HealthCarryover::default(), Instant::now());
        assert_eq!(see(&mut carry, start, 0, 10.0, &[]), [false; 0]);
        assert_eq!(see(&mut carry, start, 1, 10.0, &[true]), [true]);
        assert_eq!(see(&mut carry, start, 5, 10.0, &[]), [true]);
        assert_eq!(see(&mut carry, start, 64, 10.0, &[]), [true]);
        assert_eq!(see(&mut carry, start, 65, 10.0, &[]), [false; 0]);
        assert_eq!(see(&mut carry, start, 66, 10.0, &[]), [false; 0]);
        assert_eq!(see(&mut carry, start, 67, 10.0, &[true, false]), [true, false]);
        assert_eq!(see(&mut carry, start, 68, 10.0, &[]), [true, false]);
        assert_eq!(see(&mut carry, start, 69, 10.0, &[true]), [true]);
    }

    #[test]
    fn what_was_served_before_this_agent_started_counts_as_alive_until_there_are_results() {
        let backend = |task: &str, state| Backend {
            task: task.into(),
            address: [10, 0, 0, 1].into(),
            port: 1,
            weight: Weight::default(),
            maxconn: 0,
            state,
        };
        for (state, alive) in [(State::Active, &[true][..]), (State::Warming, &[]), (State::Draining, &[])] {
            let backends = vec![backend("t", state)];
            let service = Service { name: "/a".into(), backends, ..Service::default() };
            let services = BTreeMap::from([(ServiceKey::host(1, Protocol::Tcp), service.into())]);
            let adopted = Snapshot { services, warnings: Vec::new() };
            let (mut carry, start) = (HealthCarryover::after(&adopted), Instant::now());
            assert_eq!(see(&mut carry, start, 0, 10.0, &[]), alive, "{state:?}");
            assert_eq!(see(&mut carry, start, 60, 10.0, &[]), [false; 0], "{state:?}");
        }
    }

    #[test]
    fn slow_checks_are_awaited_for_two_intervals_and_absurd_ones_for_an_hour() {
        for (interval, held) in [(50.0, 99), (1e300, 3599), (-5.0, 59)] {
            let (mut carry, start) = (HealthCarryover::default(), Instant::now());
            see(&mut carry, start, 0, interval, &[true]);
            see(&mut carry, start, 0, interval, &[]);
            assert_eq!(see(&mut carry, start, held, interval, &[]), [true]);
            assert_eq!(see(&mut carry, start, held + 1, interval, &[]), [false; 0]);
        }
    }

    #[test]
    fn a_task_that_was_ready_stays_ready_until_told_otherwise() {
        let mut carry = HealthCarryover::default();
        let mut see = |deployments: &[&str], said: Option<bool>| {
            let said: Vec<_> = said.iter().map(|ready| json!({"taskId": "t", "ready": ready})).collect();
            let mut listing: Listing = serde_json::from_value(json!({"apps": [{"id": "/a", "deployments": deployments,
                "readinessCheckResults": said, "tasks": [{"id": "t", "state": "TASK_RUNNING"}]}]}))
            .unwrap();
            carry.apply(&mut listing, Instant::now());
            let Lenient::Good(app) = &listing.apps[0] else { panic!() };
            app.readiness_check_results.first().map(|result| result.ready)
        };
        assert_eq!(see(&["d1"], None), None);
        assert_eq!(see(&["d1"], Some(false)), Some(false));
        assert_eq!(see(&["d1"], None), None);
        assert_eq!(see(&["d1"], Some(true)), Some(true));
        assert_eq!(see(&["d1"], None), Some(true));
        assert_eq!(see(&["d1"], Some(false)), Some(false));
        assert_eq!(see(&[], None), None);
        assert_eq!(see(&["d2"], None), Some(true));
    }

    #[test]
    fn containers_of_pods_keep_their_health_too() {
        let (mut carry, start) = (HealthCarryover::default(), Instant::now());
        let mut see = |at: u64, value: &str, reported: bool| {
            let reason = if reported { "health-reported-by-mesos" } else { "health-unreported-by-mesos" };
            let container = json!({"name": "c", "conditions": [{"name": "healthy", "value": value, "reason": reason}],
                "endpoints": [{"name": "e", "healthy": value == "true"}]});
            let pods = json!([{"id": "/p", "instances": [{"id": "p.i", "containers": [container]}]}]);
            let mut listing = Listing { pods: serde_json::from_value(pods).unwrap(), ..Listing::default() };
            carry.apply(&mut listing, start + Duration::from_secs(at));
            let Lenient::Good(pod) = listing.pods.remove(0) else { panic!() };
            let Lenient::Good(instance) = &pod.instances[0] else { panic!() };
            let container = &instance.containers[0];
            (
                container.conditions[0].value.clone(),
                container.conditions[0].is_unreported(),
                container.endpoints[0].healthy,
            )
        };
        assert_eq!(see(0, "false", false), ("false".into(), true, Some(false)));
        assert_eq!(see(1, "true", true), ("true".into(), false, Some(true)));
        assert_eq!(see(2, "false", false), ("true".into(), false, None));
        assert_eq!(see(3, "false", true), ("false".into(), false, Some(false)));
        assert_eq!(see(4, "true", true), ("true".into(), false, Some(true)));
        assert_eq!(see(5, "false", false), ("true".into(), false, None));
        assert_eq!(see(65, "false", false), ("false".into(), true, Some(false)));
    }

    #[test]
    fn tasks_that_are_gone_are_forgotten() {
        let (mut carry, start) = (HealthCarryover::default(), Instant::now());
        see(&mut carry, start, 0, 10.0, &[true]);
        carry.apply(&mut Listing::default(), start);
        assert_eq!(see(&mut carry, start, 1, 10.0, &[]), [false; 0]);
    }
}
