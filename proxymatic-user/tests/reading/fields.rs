//! Sections 2.1 and 2.2: the JSON of an app, and its fields that matter.

use expect_test::expect;
use serde_json::{Value, json};

use super::{app, check, task, with};

#[test]
fn section_2_1_serialisation() {
    let nulls = json!({"args": null, "container": null, "ipAddress": null, "labels": null, "networks": null,
        "healthChecks": null, "portDefinitions": [{"port": 1000, "protocol": "tcp", "name": null, "labels": null}],
        "tasks": [with(task("t", &[1]), json!({"healthCheckResults": null, "servicePorts": null, "startedAt": null}))]});
    check(vec![
        (
            "absent is null is empty",
            json!([with(json!({"id": "/a"}), nulls)]),
            expect![[r#"
            1000/tcp /a
              t 10.0.0.9 1 Active
        "#]],
        ),
        (
            "label values may be numbers",
            json!([with(
                app("/a", 1000, json!([task("t", &[1])])),
                json!({"labels": {"com.meltwater.proxymatic.port.0.weight": 7}})
            )]),
            expect![[r#"
                1000/tcp /a
                  t 10.0.0.9 1 Active weight 7
            "#]],
        ),
        (
            "a timestamp of another precision is the same version",
            json!([with(
                app("/a", 1000, json!([with(task("t", &[1]), json!({"version": "2020-05-01T10:00:00.1Z"}))])),
                json!({"version": "2020-05-01T10:00:00.100Z", "versionInfo": {"lastConfigChangeAt": "2020-05-01T10:00:00.100Z"}})
            )]),
            expect![[r#"
                1000/tcp /a
                  t 10.0.0.9 1 Active
            "#]],
        ),
        (
            "fields nobody knows",
            json!([with(
                app("/a", 1000, json!([with(task("t", &[1]), json!({"quantum": {"spin": [1]}}))])),
                json!({"unreachableStrategy": "disabled", "colour": 7})
            )]),
            expect![[r#"
                1000/tcp /a
                  t 10.0.0.9 1 Active
            "#]],
        ),
    ]);
}

#[test]
fn section_2_2_fields_that_matter() {
    let mapping = json!([{"containerPort": 80, "hostPort": 0, "servicePort": 1000, "name": "http"}]);
    let bridge = |mappings: Value| {
        let networks = json!([{"mode": "container/bridge"}]);
        json!({"id": "/a", "networks": networks, "container": {"type": "MESOS", "portMappings": mappings},
            "tasks": [task("t", &[31000])]})
    };
    let checked = |protocol: &str| {
        let checks = json!([{"protocol": protocol, "portIndex": 0, "intervalSeconds": 60}]);
        with(
            app(&format!("/{protocol}"), 1000, json!([task(protocol, &[31000])])),
            json!({ "healthChecks": checks,
            "labels": {"com.meltwater.proxymatic.port.0.servicePort": "1000"} }),
        )
    };
    check(vec![
        (
            "id: without one",
            json!([{"networks": [{"mode": "host"}], "portDefinitions": [{"port": 1000}], "tasks": []}]),
            expect![[r#"
                an app without an id: its description cannot be read, so it is left out: missing field `id`
            "#]],
        ),
        (
            "networks: [] is that of the host",
            json!([with(app("/a", 1000, json!([task("t", &[31000])])), json!({"networks": []}))]),
            expect![[r#"
                1000/tcp /a
                  t 10.0.0.9 31000 Active
            "#]],
        ),
        (
            "networks: modes cannot be mixed",
            json!([with(
                app("/a", 1000, json!([task("t", &[31000])])),
                json!({"networks": [{"mode": "host"}, {"mode": "container"}]})
            )]),
            expect![[r#"
                /a: its networks mix the modes "host" and "container", so its ports are not known
            "#]],
        ),
        (
            "container: MESOS as DOCKER",
            json!([bridge(mapping)]),
            expect![[r#"
            1000/tcp /a
              t 10.0.0.9 31000 Active
        "#]],
        ),
        (
            "container.portMappings: may be []",
            json!([with(bridge(json!([])), json!({"tasks": [task("t", &[])]}))]),
            expect![[r#""#]],
        ),
        (
            "no task yet",
            json!([app("/a", 1000, json!([]))]),
            expect![[r#"
            1000/tcp /a
        "#]],
        ),
        (
            "versionInfo: scaling makes a version, and changes no ports",
            json!([with(
                app("/a", 1000, json!([with(task("t", &[1]), json!({"version": "2020-04-30T09:00:00.000Z"}))])),
                json!({"version": "2020-05-01T10:00:00.123Z",
                    "versionInfo": {"lastScalingAt": "2020-05-01T10:00:00.123Z", "lastConfigChangeAt": "2020-04-30T09:00:00.000Z"}})
            )]),
            expect![[r#"
                1000/tcp /a
                  t 10.0.0.9 1 Active
            "#]],
        ),
        (
            "tasksRunning and other counts are not looked at",
            json!([with(
                app("/a", 1000, json!([task("t", &[1])])),
                json!({"tasksStaged": 0, "tasksRunning": 0, "tasksHealthy": 0, "tasksUnhealthy": 1})
            )]),
            expect![[r#"
                1000/tcp /a
                  t 10.0.0.9 1 Active
            "#]],
        ),
        (
            "healthChecks: a result is awaited of a check of any protocol",
            json!(["HTTP", "HTTPS", "TCP", "MESOS_HTTP", "MESOS_HTTPS", "MESOS_TCP", "COMMAND"].map(checked)),
            expect![[r#"
                1000/tcp /COMMAND
                  COMMAND 10.0.0.9 31000 Warming
                  HTTP 10.0.0.9 31000 Warming
                  HTTPS 10.0.0.9 31000 Warming
                  MESOS_HTTP 10.0.0.9 31000 Warming
                  MESOS_HTTPS 10.0.0.9 31000 Warming
                  MESOS_TCP 10.0.0.9 31000 Warming
                  TCP 10.0.0.9 31000 Warming
            "#]],
        ),
    ]);
}

#[test]
fn section_2_2_port_mappings() {
    let bridge = |mapping| {
        json!([{"id": "/a", "networks": [{"mode": "container/bridge"}], "container": {"portMappings": [mapping]},
            "tasks": [task("t", &[31000])]}])
    };
    check(vec![
        (
            "protocol tcp is the default",
            bridge(json!({"servicePort": 1000})),
            expect![[r#"
            1000/tcp /a
              t 10.0.0.9 31000 Active
        "#]],
        ),
        (
            "protocol udp",
            bridge(json!({"servicePort": 1000, "protocol": "udp"})),
            expect![[r#"
            1000/udp /a
              t 10.0.0.9 31000 Active
        "#]],
        ),
        (
            "protocol udp,tcp",
            bridge(json!({"servicePort": 1000, "protocol": "udp,tcp"})),
            expect![[r#"
            1000/tcp /a
              t 10.0.0.9 31000 Active
            1000/udp /a
              t 10.0.0.9 31000 Active
        "#]],
        ),
        (
            "protocol tcp,udp",
            bridge(json!({"servicePort": 1000, "protocol": "tcp,udp"})),
            expect![[r#"
            1000/tcp /a
              t 10.0.0.9 31000 Active
            1000/udp /a
              t 10.0.0.9 31000 Active
        "#]],
        ),
        (
            "protocol unheard of",
            bridge(json!({"servicePort": 1000, "protocol": "sctp"})),
            expect![[r#"
            /a: port 0 has the protocol "sctp"; only tcp and udp are known
        "#]],
        ),
        (
            "containerPort 0 is the host port",
            bridge(json!({"containerPort": 0, "servicePort": 1000})),
            expect![[r#"
            1000/tcp /a
              t 10.0.0.9 31000 Active
        "#]],
        ),
        (
            "no ports at all",
            json!([{"id": "/a", "networks": [{"mode": "host"}], "portDefinitions": [], "tasks": [task("t", &[])]}]),
            expect![[""]],
        ),
        (
            "its own labels say what labels of the app say, which come first",
            json!([{"id": "/a", "networks": [{"mode": "host"}], "tasks": [task("t", &[1, 2])],
                "labels": {"com.meltwater.proxymatic.port.1.weight": "9"},
                "portDefinitions": [
                    {"port": 1000, "labels": {"com.meltwater.proxymatic.weight": "7", "other": "x"}},
                    {"port": 1001, "labels": {"com.meltwater.proxymatic.weight": "8",
                        "com.meltwater.proxymatic.servicePort": "2000", "com.meltwater.proxymatic.wieght": "1"}}]}]),
            expect![[r#"
                1000/tcp /a
                  t 10.0.0.9 1 Active weight 7
                2000/tcp /a
                  t 10.0.0.9 2 Active weight 9
                /a: port 1, label com.meltwater.proxymatic.wieght=1: is unknown; the nearest known one is com.meltwater.proxymatic.weight
            "#]],
        ),
    ]);
}
