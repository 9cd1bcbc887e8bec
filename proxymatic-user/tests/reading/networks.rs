//! Sections 3 and 3.1: tasks, and the address and port at which each of their ports is served.

use expect_test::expect;
use serde_json::{Value, json};

use super::{app, check, task, with};

/// An app with these container networks and mappings, and one task with these ports and addresses.
fn overlay(networks: &[&str], mappings: Value, ports: &[u16], addresses: &[&str]) -> Value {
    let networks: Vec<_> = networks.iter().map(|name| json!({"mode": "container", "name": name})).collect();
    let addresses: Vec<_> = addresses.iter().map(|address| json!({ "ipAddress": address })).collect();
    let task = with(task("t", ports), json!({ "ipAddresses": addresses }));
    json!([{"id": "/a", "networks": networks, "container": {"portMappings": mappings}, "tasks": [task]}])
}

#[test]
fn section_3_tasks() {
    let one = |fields| json!([app("/a", 1000, json!([with(task("t", &[31000]), fields)]))]);
    check(vec![
        (
            "id in each of its forms",
            json!([app(
                "/a/b",
                1000,
                json!([
                    task("a_b.6f1c", &[1]),
                    task("a_b.instance-6f1c._app.1", &[2]),
                    task("a_b.instance-6f1c._app.2", &[3]),
                    task("a_b.6f1d.2", &[4])
                ])
            )]),
            expect![[r#"
                1000/tcp /a/b
                  a_b.6f1c 10.0.0.9 1 Active
                  a_b.6f1d.2 10.0.0.9 4 Active
                  a_b.instance-6f1c._app.1 10.0.0.9 2 Active
                  a_b.instance-6f1c._app.2 10.0.0.9 3 Active
            "#]],
        ),
        (
            "servicePorts are those of another version, and not used",
            one(json!({"servicePorts": [9999]})),
            expect![[r#"
                1000/tcp /a
                  t 10.0.0.9 31000 Active
            "#]],
        ),
        (
            "version is absent where it has ended",
            json!([with(
                app("/a", 1000, json!([with(task("t", &[]), json!({"state": "TASK_KILLED", "version": null}))])),
                json!({"version": "2020-01-01T00:00:00.000Z"})
            )]),
            expect![[r#"
                1000/tcp /a
            "#]],
        ),
        (
            "healthCheckResults of an instance, or of a task up to 1.3",
            json!([with(
                app(
                    "/a",
                    1000,
                    json!([
                        with(
                            task("t", &[1]),
                            json!({"healthCheckResults": [
                        {"alive": true, "consecutiveFailures": 0, "instanceId": "t", "firstSuccess": "2020-05-01T10:00:20.000Z"}]})
                        ),
                        with(
                            task("u", &[2]),
                            json!({"healthCheckResults": [{"alive": false, "consecutiveFailures": 3, "taskId": "u",
                        "lastFailure": "2020-05-01T10:00:20.000Z", "lastFailureCause": "timeout"}]})
                        )
                    ])
                ),
                json!({"healthChecks": [{"protocol": "HTTP"}]})
            )]),
            expect![[r#"
                1000/tcp /a
                  t 10.0.0.9 1 Active
                  u 10.0.0.9 2 Draining
            "#]],
        ),
        (
            "slaveId, region, zone, role, checkResult and localVolumes are not looked at",
            one(json!({"slaveId": "0e-S3", "region": "eu", "zone": "b", "role": "*", "checkResult": {},
                "localVolumes": [{"containerPath": "d"}]})),
            expect![[r#"
                1000/tcp /a
                  t 10.0.0.9 31000 Active
            "#]],
        ),
        (
            "host is an address",
            one(json!({})),
            expect![[r#"
            1000/tcp /a
              t 10.0.0.9 31000 Active
        "#]],
        ),
        (
            "host is a name",
            one(json!({"host": "a1.lan"})),
            expect![[r#"
            1000/tcp /a
              t 10.0.0.1 31000 Active
        "#]],
        ),
        (
            "host is a name nobody knows",
            one(json!({"host": "a2.lan"})),
            expect![[r#"
            1000/tcp /a
            t: its host "a2.lan" has no known address: no such name (app /a)
        "#]],
        ),
        (
            "host is empty",
            one(json!({"host": ""})),
            expect![[r#"
            1000/tcp /a
            t: its host is missing, so its address is not known (app /a)
        "#]],
        ),
        (
            "ports are empty where it has ended",
            one(json!({"ports": [], "state": "TASK_KILLED"})),
            expect![[r#"
            1000/tcp /a
        "#]],
        ),
        (
            "ports are empty where it has not begun",
            one(json!({"ports": [], "state": "TASK_STAGING"})),
            expect![[r#"
            1000/tcp /a
        "#]],
        ),
        (
            "state is absent before 1.1.2, running",
            one(json!({"state": null, "startedAt": "2016-05-01T10:00:04.500Z"})),
            expect![[r#"
            1000/tcp /a
              t 10.0.0.9 31000 Active
        "#]],
        ),
        (
            "state is absent before 1.1.2, staged",
            one(json!({"state": null, "startedAt": null})),
            expect![[r#"
            1000/tcp /a
              t 10.0.0.9 31000 Warming
        "#]],
        ),
        (
            "version of a definition that is gone",
            json!([with(
                app("/a", 1000, json!([with(task("t", &[31000]), json!({"version": "2019-01-01T00:00:00.000Z"}))])),
                json!({"version": "2020-01-01T00:00:00.000Z"})
            )]),
            expect![[r#"
                1000/tcp /a
                /a: the definition of version 2019-01-01T00:00:00.000Z cannot be read: http://m/v does not exist there; the ports of the tasks that still run it are not known, so they get no new connections
            "#]],
        ),
        (
            "ipAddresses of the host network are not used",
            one(json!({"ipAddresses": [{"ipAddress": "10.9.9.9"}]})),
            expect![[r#"
            1000/tcp /a
              t 10.0.0.9 31000 Active
        "#]],
        ),
        (
            "what is no task costs only itself",
            json!([app("/a", 1000, json!([task("t", &[31000]), {"id": "u", "ports": "x"}, 7]))]),
            expect![[r#"
            1000/tcp /a
              t 10.0.0.9 31000 Active
            /a: the description of a task cannot be read: invalid type: integer `7`, expected struct Task
            u: the description of a task cannot be read: invalid type: string "x", expected a sequence
        "#]],
        ),
    ]);
}

#[test]
fn section_3_1_which_address_and_port() {
    let mapping = |service: u16, more| with(json!({"containerPort": 80, "servicePort": service}), more);
    let worked = json!([
        mapping(10000, json!({"hostPort": 0})),
        mapping(10001, json!({"containerPort": 81})),
        mapping(10002, json!({"containerPort": 53, "hostPort": 0, "protocol": "udp,tcp"}))
    ]);
    let bridge = json!([{"id": "/a", "networks": [{"mode": "container/bridge"}], "tasks": [with(task("t", &[31000, 31001]),
            json!({"ipAddresses": [{"ipAddress": "172.17.0.4"}]}))],
        "container": {"portMappings": [mapping(1000, json!({"hostPort": 0})), mapping(1001, json!({}))]}}]);
    let both = json!([
        mapping(1, json!({"networkNames": ["y"]})),
        mapping(2, json!({"networkNames": ["x"]})),
        mapping(3, json!({}))
    ]);
    let host = json!([{"id": "/a", "networks": [{"mode": "host"}], "tasks": [task("t", &[31000, 31001])],
        "portDefinitions": [{"port": 1000}, {"port": 1001}]}]);
    check(vec![
        (
            "host",
            host,
            expect![[r#"
            1000/tcp /a
              t 10.0.0.9 31000 Active
            1001/tcp /a
              t 10.0.0.9 31001 Active
        "#]],
        ),
        (
            "container/bridge",
            bridge,
            expect![[r#"
            1000/tcp /a
              t 10.0.0.9 31000 Active
            1001/tcp /a
              t 10.0.0.9 31001 Active
        "#]],
        ),
        (
            "container, hostPort present",
            overlay(&["ov"], json!([mapping(1000, json!({"hostPort": 0}))]), &[31000], &["9.0.0.5"]),
            expect![[r#"
            1000/tcp /a
              t 10.0.0.9 31000 Active
        "#]],
        ),
        (
            "container, hostPort absent",
            overlay(&["ov"], json!([mapping(1000, json!({}))]), &[], &["9.0.0.5"]),
            expect![[r#"
            1000/tcp /a
              t 9.0.0.5 80 Active
        "#]],
        ),
        (
            "container, hostPort absent, no IP yet",
            overlay(&["ov"], json!([mapping(1000, json!({}))]), &[], &[]),
            expect![[r#"
            1000/tcp /a
        "#]],
        ),
        (
            "container without a name",
            overlay(&[""], json!([mapping(1000, json!({}))]), &[], &["9.0.0.5"]),
            expect![[r#"
            1000/tcp /a
              t 9.0.0.5 80 Active
        "#]],
        ),
        (
            "containerPort 0 with a hostPort",
            overlay(
                &["ov"],
                json!([mapping(1000, json!({"containerPort": 0, "hostPort": 0}))]),
                &[31000],
                &["9.0.0.5"],
            ),
            expect![[r#"
            1000/tcp /a
              t 10.0.0.9 31000 Active
        "#]],
        ),
        (
            "containerPort 0 without a hostPort",
            overlay(&["ov"], json!([mapping(1000, json!({"containerPort": 0}))]), &[], &["9.0.0.5"]),
            expect![[r#"
            1000/tcp /a
            t: port 0: its port 0 is not from 1 to 65535 (app /a)
        "#]],
        ),
        (
            "the worked case",
            overlay(&["ov"], worked, &[31000, 31001], &["9.0.0.5"]),
            expect![[r#"
            10000/tcp /a
              t 10.0.0.9 31000 Active
            10001/tcp /a
              t 9.0.0.5 81 Active
            10002/tcp /a
              t 10.0.0.9 31001 Active
            10002/udp /a
              t 10.0.0.9 31001 Active
        "#]],
        ),
        (
            "several container networks",
            overlay(&["x", "y"], both.clone(), &[], &["9.0.0.1", "9.1.0.1"]),
            expect![[r#"
            1/tcp /a
              t 9.1.0.1 80 Active
            2/tcp /a
              t 9.0.0.1 80 Active
            3/tcp /a
              t 9.0.0.1 80 Active
        "#]],
        ),
        (
            "several container networks of two families",
            overlay(&["x", "y"], both.clone(), &[], &["9.0.0.1", "fd00::1", "9.1.0.1", "fd01::1"]),
            expect![[r#"
            1/tcp /a
              t 9.1.0.1 80 Active
            2/tcp /a
              t 9.0.0.1 80 Active
            3/tcp /a
              t 9.0.0.1 80 Active
        "#]],
        ),
        (
            "several container networks, an address short",
            overlay(&["x", "y"], both, &[], &["9.0.0.1"]),
            expect![[r#"
            1/tcp /a
            2/tcp /a
            3/tcp /a
              t 9.0.0.1 80 Active
            t: port 0: the container has 1 addresses on 2 networks, so its address is not known (app /a)
            t: port 1: the container has 1 addresses on 2 networks, so its address is not known (app /a)
        "#]],
        ),
        (
            "a network the app is not on",
            overlay(&["x", "y"], json!([mapping(1, json!({"networkNames": ["z"]}))]), &[], &["9.0.0.1", "9.1.0.1"]),
            expect![[r#"
            /a: a port names the network "z", which the app is not on
        "#]],
        ),
        (
            "an IPv6 address",
            overlay(&["ov"], json!([mapping(1000, json!({}))]), &[], &["fd01::5"]),
            expect![[r#"
            1000/tcp /a
              t fd01::5 80 Active
        "#]],
        ),
        (
            "length mismatch",
            overlay(&["ov"], json!([mapping(1000, json!({"hostPort": 0}))]), &[31000, 31001], &["9.0.0.5"]),
            expect![[r#"
            1000/tcp /a
            t: has 2 ports of its host, but its definition has 1; none of them is used, because any choice would be a guess (app /a)
        "#]],
        ),
    ]);
}
