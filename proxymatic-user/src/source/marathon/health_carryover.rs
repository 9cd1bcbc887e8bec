//! Keeps the health and readiness of tasks over a change of leader.
//!
//! Marathon's leader keeps results in memory. A new leader starts with none, and a task with checks but without results
//! gets no connections. So if the results of a task vanish, the last ones replace them for a while. Any new results count
//! at once. A task that was ready once stays ready: only a deployment waits for that, and a later one does not wait again.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    api::{App, ContainerStatus, HealthResult, Lenient, Listing, PodStatus, ReadinessResult},
    health_results::INTERVAL,
};
use crate::model::{Snapshot, State};

/// The shortest time for which the last results are used.
const AT_LEAST: Duration = Duration::from_secs(60);
/// The longest time for which the last results are used, whatever the interval of the check is.
const AT_MOST: Duration = Duration::from_secs(3600);

/// The last results of every task in the listing, by the id of the task.
#[derive(Debug, Default)]
pub(super) struct HealthCarryover(BTreeMap<String, Last>);

#[derive(Debug, Default)]
struct Last {
    results: Vec<HealthResult>,
    vanished: Option<Instant>,
    ready: bool,
}

impl HealthCarryover {
    /// Returns the state before the first listing, after an earlier agent that published these services. Tasks that got
    /// connections were alive and ready.
    pub(super) fn after(adopted: &Snapshot) -> Self {
        let backends = adopted.services.values().flat_map(|service| &service.backends);
        let active = backends.filter(|backend| backend.state == State::Active);
        let well = || Last {
            results: vec![HealthResult { alive: true, adopted: true, ..HealthResult::default() }],
            vanished: None,
            ready: true,
        };
        Self(active.map(|backend| (backend.task.clone(), well())).collect())
    }

    /// Fills in the last results where they have vanished, and keeps those that are there.
    pub(super) fn apply(&mut self, listing: &mut Listing, now: Instant) {
        let mut known = BTreeMap::new();
        for app in &mut listing.apps {
            let Lenient::Good(app) = app else { continue };
            known.extend(self.fill_app(app, now));
        }
        for pod in &mut listing.pods {
            let Lenient::Good(pod) = pod else { continue };
            known.extend(self.fill_pod(pod, now));
        }
        self.0 = known;
    }

    /// Does the same for one pod that was read alone.
    pub(super) fn apply_to_pod(&mut self, pod: &mut PodStatus, now: Instant) {
        let known = self.fill_pod(pod, now);
        self.0.extend(known);
    }

    /// Fills in the results of one pod. Returns the last results of its containers.
    fn fill_pod(&mut self, pod: &mut PodStatus, now: Instant) -> Vec<(String, Last)> {
        let mut known = Vec::new();
        for instance in &mut pod.instances {
            let Lenient::Good(instance) = instance else { continue };
            for container in &mut instance.containers {
                let key = match container.container_id.as_str() {
                    "" => format!("{}.{}", instance.id, container.name),
                    id => id.to_owned(),
                };
                let last = fill_container(container, self.0.remove(&key).unwrap_or_default(), now);
                known.push((key, last));
            }
        }
        known
    }

    /// Does the same for one app that was read alone. The results of other apps stay.
    pub(super) fn apply_to_app(&mut self, app: &mut App, now: Instant) {
        let known = self.fill_app(app, now);
        self.0.extend(known);
    }

    /// Fills in the results of one app. Returns the last results of its tasks.
    fn fill_app(&mut self, app: &mut App, now: Instant) -> Vec<(String, Last)> {
        let (hold, settled) = (hold(app), app.deployments.is_empty());
        let results: BTreeMap<_, _> = app.readiness_check_results.drain(..).map(|it| (it.task_id, it.ready)).collect();
        let (mut ready, mut known) = (results.clone(), Vec::new());
        for task in &mut app.tasks {
            let Lenient::Good(task) = task else { continue };
            let last = self.0.remove(&task.id).unwrap_or_default();
            let mut last = fill(&mut task.health_check_results, last, now, hold);
            match results.get(&task.id) {
                Some(result) => last.ready = *result,
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

/// Fills in the last results if there are none, unless they vanished too long ago.
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

/// Does the same for a container of a pod, which has a condition that says that its check has no result.
fn fill_container(container: &mut ContainerStatus, last: Last, now: Instant) -> Last {
    let Some(condition) = container.conditions.iter_mut().find(|it| it.is_health()) else { return last };
    let unreported = condition.is_unreported();
    let mut results = if unreported {
        Vec::new()
    } else {
        vec![HealthResult { alive: condition.value == "true", ..HealthResult::default() }]
    };
    let last = fill(&mut results, last, now, AT_LEAST);
    if unreported && let Some(result) = results.first() {
        condition.value = result.alive.to_string();
        condition.reason.clear();
        container.endpoints.iter_mut().for_each(|endpoint| endpoint.healthy = None);
    }
    last
}

/// Returns how long it can take until every check of an app has a result again.
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

    /// Returns the results of the only task after a listing in which it has `results`, `at` seconds after the start.
    fn see(health: &mut HealthCarryover, start: Instant, at: u64, interval: f64, results: &[bool]) -> Vec<bool> {
        let results: Vec<_> = results.iter().map(|alive| json!({"alive": alive})).collect();
        let mut listing: Listing = serde_json::from_value(json!({"apps": [{"id": "/a",
            "healthChecks": [{"intervalSeconds": interval}], "tasks": [{"id": "t", "healthCheckResults": results}]}]}))
        .unwrap();
        health.apply(&mut listing, start + Duration::from_secs(at));
        let Lenient::Good(app) = &listing.apps[0] else { panic!() };
        let Lenient::Good(task) = &app.tasks[0] else { panic!() };
        task.health_check_results.iter().map(|result| result.alive).collect()
    }

    #[test]
    fn vanished_results_stay_for_a_minute_unless_new_ones_come() {
        let (mut health, start) = (HealthCarryover::default(), Instant::now());
        assert_eq!(see(&mut health, start, 0, 10.0, &[]), [false; 0]);
        assert_eq!(see(&mut health, start, 1, 10.0, &[true]), [true]);
        assert_eq!(see(&mut health, start, 5, 10.0, &[]), [true]);
        assert_eq!(see(&mut health, start, 64, 10.0, &[]), [true]);
        assert_eq!(see(&mut health, start, 65, 10.0, &[]), [false; 0]);
        assert_eq!(see(&mut health, start, 66, 10.0, &[]), [false; 0]);
        assert_eq!(see(&mut health, start, 67, 10.0, &[true, false]), [true, false]);
        assert_eq!(see(&mut health, start, 68, 10.0, &[]), [true, false]);
        assert_eq!(see(&mut health, start, 69, 10.0, &[true]), [true]);
    }

    #[test]
    fn adopted_active_task_is_alive_until_there_are_results() {
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
            let (mut health, start) = (HealthCarryover::after(&adopted), Instant::now());
            assert_eq!(see(&mut health, start, 0, 10.0, &[]), alive, "{state:?}");
            assert_eq!(see(&mut health, start, 60, 10.0, &[]), [false; 0], "{state:?}");
        }
    }

    #[test]
    fn results_stay_for_two_intervals_and_at_most_an_hour() {
        for (interval, held) in [(50.0, 99), (1e300, 3599), (-5.0, 59)] {
            let (mut health, start) = (HealthCarryover::default(), Instant::now());
            see(&mut health, start, 0, interval, &[true]);
            see(&mut health, start, 0, interval, &[]);
            assert_eq!(see(&mut health, start, held, interval, &[]), [true]);
            assert_eq!(see(&mut health, start, held + 1, interval, &[]), [false; 0]);
        }
    }

    #[test]
    fn ready_task_stays_ready_until_a_result_denies_it() {
        let mut health = HealthCarryover::default();
        let mut see = |deployments: &[&str], results: Option<bool>| {
            let results: Vec<_> = results.iter().map(|ready| json!({"taskId": "t", "ready": ready})).collect();
            let mut listing: Listing = serde_json::from_value(json!({"apps": [{"id": "/a", "deployments": deployments,
                "readinessCheckResults": results, "tasks": [{"id": "t", "state": "TASK_RUNNING"}]}]}))
            .unwrap();
            health.apply(&mut listing, Instant::now());
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
    fn container_of_a_pod_keeps_its_health() {
        let (mut health, start) = (HealthCarryover::default(), Instant::now());
        let mut see = |at: u64, value: &str, reported: bool| {
            let reason = if reported { "health-reported-by-mesos" } else { "health-unreported-by-mesos" };
            let container = json!({"name": "c", "conditions": [{"name": "healthy", "value": value, "reason": reason}],
                "endpoints": [{"name": "e", "healthy": value == "true"}]});
            let pods = json!([{"id": "/p", "instances": [{"id": "p.i", "containers": [container]}]}]);
            let mut listing = Listing { pods: serde_json::from_value(pods).unwrap(), ..Listing::default() };
            health.apply(&mut listing, start + Duration::from_secs(at));
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
    fn task_that_is_gone_is_forgotten() {
        let (mut health, start) = (HealthCarryover::default(), Instant::now());
        see(&mut health, start, 0, 10.0, &[true]);
        health.apply(&mut Listing::default(), start);
        assert_eq!(see(&mut health, start, 1, 10.0, &[]), [false; 0]);
    }
}
