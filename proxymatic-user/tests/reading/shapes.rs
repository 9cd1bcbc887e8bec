//! Sections 2.3 and 2.4: the format of an app before Marathon 1.5, and its service ports.

use expect_test::expect;
use serde_json::json;

use super::{app, check, task, with};

#[test]
fn section_2_3_legacy_shape() {
    let docker = |docker, more| {
        let container = json!({"type": "DOCKER", "docker": docker});
        json!([with(json!({"id": "/a", "container": container, "tasks": [task("t", &[31000, 31001])]}), more)])
    };
    let mappings = json!([
        {"containerPort": 80, "hostPort": 0, "servicePort": 1000, "protocol": "tcp", "labels": {}},
        {"containerPort": 81, "hostPort": 0, "servicePort": 1001, "protocol": "udp", "name": "two"}]);
    let definitions = json!([{"port": 1000, "protocol": "tcp", "labels": {}}, {"port": 1001, "protocol": "udp"}]);
    let per_task = |tasks, discovery| {
        json!([{"id": "/a", "container": null, "tasks": tasks, "labels": {"com.meltwater.proxymatic.port.0.servicePort": "1000"},
            "ipAddress": {"groups": ["g"], "labels": {}, "discovery": {"ports": discovery}, "networkName": "ov"}}])
    };
    let own = with(task("t", &[]), json!({"ipAddresses": [{"ipAddress": "9.0.0.5", "protocol": "IPv4"}]}));
    let both = with(task("t", &[31000]), json!({"ipAddresses": [{"ipAddress": "9.0.0.5"}]}));
    check(vec![
        (
            "ports alone",
            json!([{"id": "/a", "ports": [1000], "tasks": [task("t", &[31000])]}]),
            expect![[r#"
            1000/tcp /a
              t 10.0.0.9 31000 Active
        "#]],
        ),
        (
            "ports and portDefinitions",
            json!([{"id": "/a", "ports": [1000, 1001], "portDefinitions": definitions, "requirePorts": false,
                "tasks": [task("t", &[31000, 31001])]}]),
            expect![[r#"
                1000/tcp /a
                  t 10.0.0.9 31000 Active
                1001/udp /a
                  t 10.0.0.9 31001 Active
            "#]],
        ),
        (
            "docker network HOST",
            docker(json!({"network": "HOST", "portMappings": null}), json!({"portDefinitions": definitions})),
            expect![[r#"
                1000/tcp /a
                  t 10.0.0.9 31000 Active
                1001/udp /a
                  t 10.0.0.9 31001 Active
            "#]],
        ),
        (
            "docker network null",
            docker(json!({"network": null}), json!({"portDefinitions": definitions})),
            expect![[r#"
            1000/tcp /a
              t 10.0.0.9 31000 Active
            1001/udp /a
              t 10.0.0.9 31001 Active
        "#]],
        ),
        (
            "docker network BRIDGE",
            docker(
                json!({"network": "BRIDGE", "portMappings": mappings}),
                json!({"portDefinitions": definitions,
                "ports": [1000, 1001], "ipAddress": null}),
            ),
            expect![[r#"
                1000/tcp /a
                  t 10.0.0.9 31000 Active
                1001/udp /a
                  t 10.0.0.9 31001 Active
            "#]],
        ),
        (
            "docker network BRIDGE without mappings",
            docker(json!({"network": "BRIDGE", "portMappings": null}), json!({"portDefinitions": definitions})),
            expect![[r#"
                1000/tcp /a
                  t 10.0.0.9 31000 Active
                1001/udp /a
                  t 10.0.0.9 31001 Active
            "#]],
        ),
        (
            "docker network USER",
            json!([{"id": "/a", "ipAddress": {"networkName": "ov", "discovery": {"ports": []}}, "tasks": [both],
                "container": {"docker": {"network": "USER", "portMappings": [
                    {"containerPort": 80, "hostPort": 0, "servicePort": 1000},
                    {"containerPort": 81, "hostPort": null, "servicePort": 1001}]}}}]),
            expect![[r#"
                1000/tcp /a
                  t 10.0.0.9 31000 Active
                1001/tcp /a
                  t 9.0.0.5 81 Active
            "#]],
        ),
        ("docker network NONE", docker(json!({"network": "NONE"}), json!({"ports": [1000]})), expect![[""]]),
        (
            "docker network unheard of",
            docker(json!({"network": "WARP"}), json!({"ports": [1000]})),
            expect![[r#"
            /a: its docker network "WARP" is unknown, so its ports are not known
        "#]],
        ),
        (
            "ipAddress with discovery",
            per_task(
                json!([own]),
                json!([{"number": 80, "name": "http", "protocol": "tcp", "labels": {}},
                {"number": 81, "name": "vip", "protocol": "tcp", "labels": {"VIP_0": "192.0.2.1:80"}},
                {"number": 82, "name": "none", "protocol": "udp", "labels": {}}]),
            ),
            expect![[r#"
                1000/tcp /a
                  t 9.0.0.5 80 Active
                192.0.2.1:80/tcp /a
                  t 9.0.0.5 81 Active
                /a: port 2 has no service port, so it cannot be connected to; set one there, or with the label com.meltwater.proxymatic.port.2.servicePort
            "#]],
        ),
        (
            "ipAddress without discovery",
            per_task(json!([own]), json!([])),
            expect![[r#"
            /a: label com.meltwater.proxymatic.port.0.servicePort: the app has no ports
        "#]],
        ),
    ]);
}

#[test]
fn section_2_4_service_ports() {
    let mut two = app("/a", 0, json!([task("t", &[31000])]));
    two["portDefinitions"][0]["port"] = json!(70_000);
    check(vec![
        (
            "0 where none was assigned",
            json!([app("/a", 0, json!([task("t", &[31000])]))]),
            expect![[r#"
            /a: port 0 has no service port, so it cannot be connected to; set one there, or with the label com.meltwater.proxymatic.port.0.servicePort
        "#]],
        ),
        (
            "a number out of range",
            json!([two]),
            expect![[r#"
            /a: port 0 has the service port 70000, which cannot be connected to; set one there, or with the label com.meltwater.proxymatic.port.0.servicePort
        "#]],
        ),
        (
            "two apps may share one",
            json!([app("/a", 1000, json!([task("ta", &[1])])), app("/b", 1000, json!([task("tb", &[2])]))]),
            expect![[r#"
                1000/tcp /a
                  ta 10.0.0.9 1 Active
                  tb 10.0.0.9 2 Active
                /a: service port 1000/tcp is claimed by /a and /b; their tasks share it; if that is intended, add the label com.meltwater.proxymatic.port.<index>.servicePort=1000
            "#]],
        ),
        (
            "two mappings may repeat a number: a pair of tcp and udp",
            json!([{"id": "/a", "networks": [{"mode": "container/bridge"}], "tasks": [task("t", &[1, 2])],
                "container": {"portMappings": [{"servicePort": 53, "protocol": "tcp"}, {"servicePort": 53, "protocol": "udp"}]}}]),
            expect![[r#"
                53/tcp /a
                  t 10.0.0.9 1 Active
                53/udp /a
                  t 10.0.0.9 2 Active
            "#]],
        ),
        (
            "requirePorts: the port of the host as well, which is left to its tasks",
            json!([with(app("/a", 9100, json!([task("t", &[9100])])), json!({"requirePorts": true}))]),
            expect![[r#"
                /a: service port 9100/tcp is the port of its tasks on their own hosts, so it is not served; --expose-host serves it on every host
            "#]],
        ),
        (
            "requirePorts, and a label that gives another number",
            json!([with(
                app("/a", 9100, json!([task("t", &[9100])])),
                json!({"requirePorts": true,
                "labels": {"com.meltwater.proxymatic.port.0.servicePort": "1000"}})
            )]),
            expect![[r#"
                1000/tcp /a
                  t 10.0.0.9 9100 Active
            "#]],
        ),
        (
            "a mapping with a fixed host port",
            json!([{"id": "/a", "networks": [{"mode": "container/bridge"}], "tasks": [task("t", &[80])],
                "container": {"portMappings": [{"hostPort": 80, "servicePort": 80}]}}]),
            expect![[r#"
                /a: service port 80/tcp is the port of its tasks on their own hosts, so it is not served; --expose-host serves it on every host
            "#]],
        ),
    ]);
}

#[test]
fn expose_host_serves_services_on_host_ports() {
    let daemon = with(app("/node", 9100, json!([task("t", &[9100])])), json!({"requirePorts": true}));
    let options = super::Options { expose_host: true, ..super::options() };
    let snapshot = super::snapshot(json!([daemon]), json!([]), &options);
    expect![[r#"
        9100/tcp /node
          t 10.0.0.9 9100 Active
    "#]]
    .assert_eq(&super::text(&snapshot));
}
