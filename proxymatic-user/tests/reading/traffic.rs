//! Section 7: the conditions for a task to get traffic.

use expect_test::expect;
use serde_json::{Value, json};

use super::{app, check, task, with};

/// An app with health checks, or without, and tasks with these fields.
fn of(checks: usize, tasks: &[Value]) -> Value {
    let checks: Vec<_> = (0..checks).map(|_| json!({"protocol": "MESOS_TCP"})).collect();
    let tasks: Vec<_> = tasks.iter().zip(1..).map(|(it, n)| with(task(&format!("t{n}"), &[n]), it.clone())).collect();
    json!([with(app("/a", 1000, json!(tasks)), json!({ "healthChecks": checks }))])
}

#[test]
fn section_7_task_states_and_traffic() {
    let results = |alive: &[bool]| {
        let results: Vec<_> = alive.iter().map(|alive| json!({ "alive": alive })).collect();
        json!({ "healthCheckResults": results })
    };
    let state = |state: &str| json!({ "state": state });
    let alive = |word: &str| json!({"state": word, "healthCheckResults": [{"alive": true}]});
    let ready = |result: Value| {
        let fields = json!({"readinessChecks": [{"name": "readinessCheck"}], "deployments": [{"id": "d"}],
            "readinessCheckResults": result});
        json!([with(app("/a", 1000, json!([task("t1", &[1])])), fields)])
    };
    check(vec![
        (
            "RUNNING, no checks",
            of(0, &[json!({})]),
            expect![[r#"
            1000/tcp /a
              t1 10.0.0.9 1 Active
        "#]],
        ),
        (
            "checks, no result yet",
            of(1, &[results(&[]), json!({"healthCheckResults": [null]})]),
            expect![[r#"
            1000/tcp /a
              t1 10.0.0.9 1 Warming
              t2 10.0.0.9 2 Warming
        "#]],
        ),
        (
            "failing in grace period",
            of(1, &[json!({"healthCheckResults": [{"alive": false, "consecutiveFailures": 0}]})]),
            expect![[r#"
            1000/tcp /a
              t1 10.0.0.9 1 Draining
        "#]],
        ),
        (
            "some alive, some not",
            of(2, &[results(&[true, false]), results(&[true, true]), results(&[true])]),
            expect![[r#"
            1000/tcp /a
              t1 10.0.0.9 1 Draining
              t2 10.0.0.9 2 Active
              t3 10.0.0.9 3 Active
        "#]],
        ),
        (
            "results, but no checks any more",
            of(0, &[results(&[false])]),
            expect![[r#"
            1000/tcp /a
              t1 10.0.0.9 1 Active
        "#]],
        ),
        (
            "readiness check in deployment, no result",
            ready(json!([])),
            expect![[r#"
            1000/tcp /a
              t1 10.0.0.9 1 Warming
        "#]],
        ),
        (
            "readiness check in deployment, not ready",
            ready(json!([{"taskId": "t1", "ready": false}])),
            expect![[r#"
            1000/tcp /a
              t1 10.0.0.9 1 Warming
        "#]],
        ),
        (
            "readiness check in deployment, ready",
            ready(json!([{"taskId": "t1", "ready": true}])),
            expect![[r#"
            1000/tcp /a
              t1 10.0.0.9 1 Active
        "#]],
        ),
        (
            "STAGING / STARTING",
            of(0, &[state("TASK_STAGING"), state("TASK_STARTING")]),
            expect![[r#"
            1000/tcp /a
              t1 10.0.0.9 1 Warming
              t2 10.0.0.9 2 Warming
        "#]],
        ),
        (
            "UNREACHABLE, others run",
            of(1, &[alive("TASK_UNREACHABLE"), alive("TASK_RUNNING")]),
            expect![[r#"
            1000/tcp /a
              t1 10.0.0.9 1 Draining
              t2 10.0.0.9 2 Active
        "#]],
        ),
        (
            "UNREACHABLE, all of them",
            of(1, &[alive("TASK_UNREACHABLE"), alive("TASK_UNREACHABLE")]),
            expect![[r#"
            1000/tcp /a
              t1 10.0.0.9 1 Active
              t2 10.0.0.9 2 Active
        "#]],
        ),
        (
            "UNREACHABLE, all of them but one that has not begun: each as it last was",
            of(
                1,
                &[alive("TASK_UNREACHABLE"), with(results(&[false]), state("TASK_UNREACHABLE")), state("TASK_STAGING")],
            ),
            expect![[r#"
                1000/tcp /a
                  t1 10.0.0.9 1 Active
                  t2 10.0.0.9 2 Draining
                  t3 10.0.0.9 3 Warming
            "#]],
        ),
        (
            "KILLING",
            of(1, &[alive("TASK_KILLING")]),
            expect![[r#"
            1000/tcp /a
              t1 10.0.0.9 1 Draining
        "#]],
        ),
        (
            "ended",
            of(
                0,
                &["FAILED", "GONE", "FINISHED", "KILLED", "ERROR", "DROPPED", "UNKNOWN", "GONE_BY_OPERATOR"]
                    .map(|word| state(&format!("TASK_{word}"))),
            ),
            expect![[r#"
            1000/tcp /a
        "#]],
        ),
        (
            "LOST is the word of 1.1 to 1.3 for UNREACHABLE: others run",
            of(0, &[state("TASK_LOST"), state("TASK_RUNNING")]),
            expect![[r#"
            1000/tcp /a
              t1 10.0.0.9 1 Draining
              t2 10.0.0.9 2 Active
        "#]],
        ),
        (
            "a result proves that a task without a state runs",
            of(1, &[json!({"state": null, "healthCheckResults": [{"alive": true}]})]),
            expect![[r#"
            1000/tcp /a
              t1 10.0.0.9 1 Active
        "#]],
        ),
        (
            "a word nobody knows",
            of(0, &[state("TASK_TELEPORTING")]),
            expect![[r#"
            1000/tcp /a
              t1 10.0.0.9 1 Draining
            t1: its state "TASK_TELEPORTING" is unknown; it gets no new connections
        "#]],
        ),
    ]);
}
