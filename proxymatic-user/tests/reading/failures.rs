//! Section 8.2: known failures of other programs that concern the conversion.

use expect_test::expect;
use serde_json::json;

use super::{app, check, task, with};

#[test]
fn section_8_2_failure_modes() {
    let canary = with(
        app("/web-canary", 10007, json!([task("c", &[2])])),
        json!({"labels": {"com.meltwater.proxymatic.port.0.servicePort": "1000"}}),
    );
    let overlay = json!({"id": "/a", "networks": [{"mode": "container", "name": "ov"}],
        "container": {"portMappings": [{"containerPort": 80, "servicePort": 1000}]}});
    let both = json!({"ipAddresses": [{"ipAddress": "9.0.0.5"}]});
    check(vec![
        (
            "duplicate service ports by label: a canary",
            json!([app("/web", 1000, json!([task("w", &[1])])), canary]),
            expect![[r#"
            1000/tcp /web
              c 10.0.0.9 2 Active
              w 10.0.0.9 1 Active
        "#]],
        ),
        (
            "port 0",
            json!([app("/a", 1000, json!([task("t", &[0])]))]),
            expect![[r#"
            1000/tcp /a
            t: port 0: its port 0 is not from 1 to 65535 (app /a)
        "#]],
        ),
        (
            "missing ports",
            json!([app("/a", 1000, json!([task("t", &[])]))]),
            expect![[r#"
            1000/tcp /a
            t: has 0 ports of its host, but its definition has 1; none of them is used, because any choice would be a guess (app /a)
        "#]],
        ),
        (
            "mixed ports",
            json!([with(
                app("/a", 1000, json!([task("t", &[1, 2])])),
                json!({"portDefinitions":
                [{"port": 1000, "protocol": "udp"}, {"port": 1001, "protocol": "tcp"}]})
            )]),
            expect![[r#"
                1000/udp /a
                  t 10.0.0.9 1 Active
                1001/tcp /a
                  t 10.0.0.9 2 Active
            "#]],
        ),
        (
            "IP per task: the network decides, not that there are addresses",
            json!([
                app("/host", 999, json!([with(task("h", &[1]), both.clone())])),
                with(overlay, json!({"tasks": [with(task("t", &[]), both)]}))
            ]),
            expect![[r#"
                999/tcp /host
                  h 10.0.0.9 1 Active
                1000/tcp /a
                  t 9.0.0.5 80 Active
            "#]],
        ),
        (
            "API break 1.4 to 1.5: both shapes in one answer",
            json!([{"id": "/old", "ports": [1001], "tasks": [task("o", &[1])],
                    "container": {"docker": {"network": "BRIDGE", "portMappings": [{"containerPort": 80, "hostPort": 0, "servicePort": 1001}]}}},
                {"id": "/new", "networks": [{"mode": "container/bridge"}], "tasks": [task("n", &[2])],
                    "container": {"portMappings": [{"containerPort": 80, "hostPort": 0, "servicePort": 1000}]}}]),
            expect![[r#"
                1000/tcp /new
                  n 10.0.0.9 2 Active
                1001/tcp /old
                  o 10.0.0.9 1 Active
            "#]],
        ),
        (
            "empty host, staged 1970",
            json!([app(
                "/a",
                1000,
                json!([
                    with(
                        task("t", &[1]),
                        json!({"host": "", "state": "TASK_STAGING",
                "stagedAt": "1970-01-01T00:00:00.000Z"})
                    ),
                    task("u", &[2])
                ])
            )]),
            expect![[r#"
                1000/tcp /a
                  u 10.0.0.9 2 Active
                t: its host is missing, so its address is not known (app /a)
            "#]],
        ),
        (
            "IPv6",
            json!([app("/a", 1000, json!([with(task("t", &[1]), json!({"host": "[fd01::9]"}))]))]),
            expect![[r#"
            1000/tcp /a
              t fd01::9 1 Active
        "#]],
        ),
        (
            "one bad app, label or task costs only itself",
            json!(["not an app", {"id": "/bad", "networks": 7}, with(app("/a", 1000, json!([task("t", &[1]), {"id": "u", "ports": 7}])),
                json!({"labels": {"com.meltwater.proxymatic.port.0.weight": "much",
                    "com.meltwater.proxymatic.port.0.balance": "best", "com.meltwater.proxymatic.port.0.allow": "10.0.0.0/8",
                    "com.meltwater.proxymatic.port.0.slowstart": "30s"}}))]),
            expect![[r#"
                1000/tcp /a
                  t 10.0.0.9 1 Active
                /a: label com.meltwater.proxymatic.port.0.balance=best: must be one of leastconn, random, roundrobin, source, latency and maglev; it is left out
                /a: label com.meltwater.proxymatic.port.0.slowstart=30s: is not supported by this version
                /a: label com.meltwater.proxymatic.port.0.weight=much: must be a number from 0 to 1000; the default of 500 is used
                /bad: its description cannot be read, so it is left out: invalid type: integer `7`, expected a sequence
                an app without an id: its description cannot be read, so it is left out: invalid type: string "not an app", expected struct App
                u: the description of a task cannot be read: invalid type: integer `7`, expected a sequence
            "#]],
        ),
    ]);
}
