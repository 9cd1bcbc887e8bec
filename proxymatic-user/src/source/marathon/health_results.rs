//! The health of a task by the results of its checks. Pure.
//!
//! Marathon 1.8 and later keep results for each instance. A task that replaces another one under its instance is listed
//! with the results of the other one, good or bad, until it has some of its own. No event announces its first success,
//! because for the instance nothing changes. So the app is read again at the interval of its checks.

use std::{collections::BTreeMap, time::Duration};

use super::{
    api::{App, HealthResult, Lenient, Task, good},
    timestamp::millis,
};
use crate::model::Health;

/// The interval in seconds of a health check without one.
pub(super) const INTERVAL: f64 = 60.0;
/// The shortest time after which an app is read again for the results of its checks.
const SOONEST: Duration = Duration::from_millis(500);
/// The longest such time.
const LATEST: Duration = Duration::from_secs(60);

/// Returns the health of a task. `checked`: whether its app has health checks.
pub(super) fn health(checked: bool, task: &Task) -> Health {
    if !checked {
        return Health::Unchecked;
    }
    let own = || task.health_check_results.iter().filter(|result| is_own(result, task));
    if own().any(|result| !result.alive) {
        Health::Failing
    } else if own().count() == 0 || has_inherited(task) {
        Health::Unknown
    } else {
        Health::Alive
    }
}

/// Returns the apps with a task that runs and has a result of the task before it, each with the time after which it may
/// have one of its own.
pub(super) fn awaited_results(apps: &[Lenient<App>]) -> BTreeMap<String, Duration> {
    let awaits = |task: &Task| task.state == "TASK_RUNNING" && has_inherited(task);
    let awaiting = good(apps).filter(|app| !app.health_checks.is_empty() && good(&app.tasks).any(awaits));
    awaiting.map(|app| (app.id.clone(), interval(app))).collect()
}

/// Returns the shortest interval of an app's checks.
fn interval(app: &App) -> Duration {
    let intervals = app.health_checks.iter().map(|check| check.interval_seconds.unwrap_or(INTERVAL));
    let shortest = intervals.fold(INTERVAL, f64::min);
    Duration::try_from_secs_f64(shortest).unwrap_or(LATEST).clamp(SOONEST, LATEST)
}

fn has_inherited(task: &Task) -> bool {
    task.health_check_results.iter().any(|result| !is_own(result, task))
}

/// Returns whether a result is of this task: its last success or failure is not older than the start of the task.
///
/// `firstSuccess` stays that of the first task of the instance. A result without times counts if the task has no start
/// either, or if it is a success: Marathon always names the time of a success.
fn is_own(result: &HealthResult, task: &Task) -> bool {
    let last = millis(&result.last_success).max(millis(&result.last_failure));
    match (last, millis(&task.started_at)) {
        _ if result.adopted => true,
        (_, None) => true,
        (Some(last), Some(started)) => last >= started,
        (None, Some(_)) => result.alive,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const BEFORE: &str = "2026-01-01T00:00:09.999Z";
    const START: &str = "2026-01-01T00:00:10.000Z";
    const AFTER: &str = "2026-01-01T00:00:11.000Z";

    fn task(started: Option<&str>, results: &serde_json::Value) -> Task {
        let task = json!({"id": "t", "state": "TASK_RUNNING", "startedAt": started, "healthCheckResults": results});
        serde_json::from_value(task).unwrap()
    }

    #[test]
    fn results_older_than_the_task_are_of_the_task_before() {
        let alive = |first: &str, last: &str| json!({"alive": true, "firstSuccess": first, "lastSuccess": last});
        let failed = |last: &str| json!({"alive": false, "lastFailure": last});
        for (results, expected) in [
            (json!([]), Health::Unknown),
            (json!([alive(BEFORE, BEFORE)]), Health::Unknown),
            (json!([alive(BEFORE, AFTER)]), Health::Alive),
            (json!([alive(START, START)]), Health::Alive),
            (json!([failed(BEFORE)]), Health::Unknown),
            (json!([failed(AFTER)]), Health::Failing),
            (json!([{"alive": false, "lastSuccess": BEFORE, "lastFailure": AFTER}]), Health::Failing),
            (json!([alive(BEFORE, BEFORE), alive(AFTER, AFTER)]), Health::Unknown),
            (json!([alive(BEFORE, BEFORE), failed(AFTER)]), Health::Failing),
            (json!([{"alive": false, "consecutiveFailures": 0}]), Health::Unknown),
            (json!([{"alive": true}]), Health::Alive),
        ] {
            assert_eq!(health(true, &task(Some(START), &results)), expected, "{results}");
        }
        let old = json!([alive(BEFORE, BEFORE)]);
        assert_eq!(health(true, &task(None, &old)), Health::Alive, "a task without a start");
        assert_eq!(health(false, &task(Some(START), &old)), Health::Unchecked);
    }

    #[test]
    fn app_is_read_again_while_a_running_task_has_inherited_results() {
        let app = |state: &str, result: &str, checks: &serde_json::Value| -> Lenient<App> {
            let task = json!({"id": "t", "state": state, "startedAt": START,
                "healthCheckResults": [{"alive": true, "lastSuccess": result}]});
            serde_json::from_value(json!({"id": "/a", "healthChecks": checks, "tasks": [task]})).unwrap()
        };
        let checks = json!([{"intervalSeconds": 30}, {"intervalSeconds": 5}]);
        let awaited = |app| awaited_results(&[app]).into_values().next();
        assert_eq!(awaited(app("TASK_RUNNING", BEFORE, &checks)), Some(Duration::from_secs(5)));
        assert_eq!(awaited(app("TASK_RUNNING", BEFORE, &json!([{}]))), Some(LATEST));
        assert_eq!(awaited(app("TASK_RUNNING", BEFORE, &json!([{"intervalSeconds": 0}]))), Some(SOONEST));
        assert_eq!(awaited(app("TASK_RUNNING", AFTER, &checks)), None);
        assert_eq!(awaited(app("TASK_STAGING", BEFORE, &checks)), None);
        assert_eq!(awaited(app("TASK_RUNNING", BEFORE, &json!([]))), None);
    }
}
