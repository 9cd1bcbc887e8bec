//! Labels `VIP_<n>` of DC/OS (section 8.3), by address and by name.

use expect_test::expect;
use serde_json::{Value, json};

use super::{app, check, task};

/// An app with one port that has these labels.
fn labelled(id: &str, port: u16, labels: Value, host_port: u16) -> Value {
    json!({"id": id, "networks": [{"mode": "host"}], "tasks": [task(&id[1..], &[host_port])],
        "portDefinitions": [{"port": port, "protocol": "tcp", "labels": labels}]})
}

#[test]
fn section_8_3_virtual_addresses() {
    let vip = |id, port, value: &str, host_port| labelled(id, port, json!({ "VIP_0": value }), host_port);
    check(vec![
        (
            "ip:port is a service of its own",
            json!([vip("/a", 10000, "192.0.2.1:80", 1)]),
            expect![[r#"
            10000/tcp /a
              a 10.0.0.9 1 Active
            192.0.2.1:80/tcp /a
              a 10.0.0.9 1 Active
        "#]],
        ),
        (
            "ip:port of two apps is shared",
            json!([vip("/a", 10000, "192.0.2.1:80", 1), vip("/b", 10001, "192.0.2.1:80", 2)]),
            expect![[r#"
            10000/tcp /a
              a 10.0.0.9 1 Active
            10001/tcp /b
              b 10.0.0.9 2 Active
            192.0.2.1:80/tcp /a
              a 10.0.0.9 1 Active
              b 10.0.0.9 2 Active
        "#]],
        ),
        (
            "/name:port is that port of every host",
            json!([vip("/a", 10000, "/web:80", 1)]),
            expect![[r#"
            80/tcp /web:80
              a 10.0.0.9 1 Active
            10000/tcp /a
              a 10.0.0.9 1 Active
        "#]],
        ),
        (
            "/name:port of two apps is shared",
            json!([vip("/a", 10000, "/web:80", 1), vip("/b", 10001, "/web:80", 2)]),
            expect![[r#"
            80/tcp /web:80
              a 10.0.0.9 1 Active
              b 10.0.0.9 2 Active
            10000/tcp /a
              a 10.0.0.9 1 Active
            10001/tcp /b
              b 10.0.0.9 2 Active
        "#]],
        ),
        (
            "two names of one port: the first has it",
            json!([vip("/a", 10000, "/web:80", 1), vip("/b", 10001, "/api:80", 2)]),
            expect![[r#"
                80/tcp /web:80
                  a 10.0.0.9 1 Active
                10000/tcp /a
                  a 10.0.0.9 1 Active
                10001/tcp /b
                  b 10.0.0.9 2 Active
                /b: the virtual address /api:80 is not served: names are served at their port on every host, and 80/tcp is /web:80; give it another port, or a service port with the label com.meltwater.proxymatic.port.<index>.servicePort
            "#]],
        ),
        (
            "a service port comes before a name",
            json!([vip("/a", 10000, "/web:80", 1), app("/b", 80, json!([task("b", &[2])]))]),
            expect![[r#"
            80/tcp /b
              b 10.0.0.9 2 Active
            10000/tcp /a
              a 10.0.0.9 1 Active
            /a: the virtual address /web:80 is not served: names are served at their port on every host, and 80/tcp is the service port of /b; give it another port, or a service port with the label com.meltwater.proxymatic.port.<index>.servicePort
        "#]],
        ),
        (
            "a name on its own service port",
            json!([vip("/a", 80, "/web:80", 1)]),
            expect![[r#"
            80/tcp /a
              a 10.0.0.9 1 Active
        "#]],
        ),
        (
            "without a service port",
            json!([vip("/a", 0, "192.0.2.1:80", 1)]),
            expect![[r#"
            192.0.2.1:80/tcp /a
              a 10.0.0.9 1 Active
        "#]],
        ),
        (
            "several labels, weight with them",
            json!([labelled(
                "/a",
                10000,
                json!({"VIP_0": "192.0.2.1:80", "VIP_1": "[fd00::1]:81",
                "com.meltwater.proxymatic.weight": "50"}),
                1
            )]),
            expect![[r#"
                10000/tcp /a
                  a 10.0.0.9 1 Active weight 50
                192.0.2.1:80/tcp /a
                  a 10.0.0.9 1 Active weight 50
                [fd00::1]:81/tcp /a
                  a 10.0.0.9 1 Active weight 50
            "#]],
        ),
        (
            "a bad label costs only itself",
            json!([labelled("/a", 10000, json!({"VIP_0": "nonsense", "VIP_1": "192.0.2.1:80"}), 1)]),
            expect![[r#"
                10000/tcp /a
                  a 10.0.0.9 1 Active
                192.0.2.1:80/tcp /a
                  a 10.0.0.9 1 Active
                /a: port 0, label VIP_0=nonsense: must be ip:port or /name:port; it is left out
            "#]],
        ),
    ]);
}
