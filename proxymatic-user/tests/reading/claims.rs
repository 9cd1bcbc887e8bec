//! What apps may not claim: each row is an attack of one app on what belongs to another, and fails.

use std::{num::NonZeroU32, sync::Arc};

use expect_test::{Expect, expect};
use proxymatic_user::source::marathon::ClaimRules;
use serde_json::{Value, json};

use super::{Options, app, snapshot, task, text};

/// The rules of an operator who permits one network, and whose Marathon is inside of it.
fn rules() -> ClaimRules {
    let protected = [("10.91.0.5", "an address of Marathon"), ("a1.lan", "an address of registrator's etcd")];
    ClaimRules {
        vip_networks: vec!["10.91.0.0/24".parse().expect("a network"), "fe80::/10".parse().expect("a network")],
        protected: protected.map(|(host, what)| (host.to_owned(), what.to_owned())).into(),
        ..ClaimRules::default()
    }
}

/// An app on 10.91.0.77 with one port that has these labels.
fn claiming(labels: Value) -> Value {
    let task = json!({"id": "evil.1", "host": "10.91.0.77", "ports": [6666], "state": "TASK_RUNNING"});
    json!({"id": "/evil", "networks": [{"mode": "host"}], "tasks": [task],
        "portDefinitions": [{"port": 10000, "protocol": "tcp", "labels": labels}]})
}

fn assert_reads(rules: ClaimRules, apps: Value, expected: Expect) {
    let options = Options { claims: Arc::new(rules), ..NonZeroU32::MIN.into() };
    expected.assert_eq(&text(&snapshot(apps, json!([]), &options)));
}

#[test]
fn virtual_address_outside_of_the_networks_is_not_served() {
    assert_reads(
        ClaimRules::default(),
        json!([claiming(json!({"VIP_0": "8.8.8.8:53", "VIP_1": "10.91.0.99:5432", "VIP_2": "/postgres:5432"}))]),
        expect![[r#"
            10000/tcp /evil
              evil.1 10.91.0.77 6666 Active
            /evil: port 0, the virtual address /postgres:5432 is not served: names take their port on every host, and --vip-names does not permit them
            /evil: port 0, the virtual address 10.91.0.99:5432 is not served: it is in no network of --vip-networks
            /evil: port 0, the virtual address 8.8.8.8:53 is not served: it is in no network of --vip-networks
        "#]],
    );
    assert_reads(
        rules(),
        json!([claiming(json!({"VIP_0": "8.8.8.8:53", "VIP_1": "10.91.0.99:5432"}))]),
        expect![[r#"
            10000/tcp /evil
              evil.1 10.91.0.77 6666 Active
            10.91.0.99:5432/tcp /evil
              evil.1 10.91.0.77 6666 Active
            /evil: port 0, the virtual address 8.8.8.8:53 is not served: it is in no network of --vip-networks
        "#]],
    );
}

/// The host of another app's task, Marathon by address, etcd by name, a link-local address; also by IPv6 notation.
#[test]
fn virtual_address_of_an_infrastructure_host_is_not_served() {
    let other = app("/web", 80, json!([{"id": "web.1", "host": "10.91.0.66", "ports": [1], "state": "TASK_RUNNING"}]));
    let labels = json!({
        "VIP_0": "10.91.0.66:5051", "VIP_1": "[::ffff:10.91.0.5]:8080", "VIP_2": "10.0.0.1:2379",
        "VIP_3": "[fe80::1]:80", "VIP_4": "10.91.0.77:22",
    });
    let wider = ClaimRules {
        vip_networks: vec!["0.0.0.0/0".parse().expect("a network"), "::/0".parse().expect("a network")],
        ..rules()
    };
    let named = json!({"id": "/named", "networks": [{"mode": "host"}], "tasks": [
        {"id": "named.1", "host": "a1.lan", "ports": [2], "state": "TASK_RUNNING"}],
        "portDefinitions": [{"port": 81, "protocol": "tcp"}]});
    assert_reads(
        wider,
        json!([claiming(labels), other, named]),
        expect![[r#"
        80/tcp /web
          web.1 10.91.0.66 1 Active
        81/tcp /named
          named.1 10.0.0.1 2 Active
        10000/tcp /evil
          evil.1 10.91.0.77 6666 Active
        /evil: port 0, the virtual address 10.0.0.1:2379 is not served: it is an address of registrator's etcd
        /evil: port 0, the virtual address 10.91.0.5:8080 is not served: it is an address of Marathon
        /evil: port 0, the virtual address 10.91.0.66:5051 is not served: it is the address of the host "10.91.0.66"
        /evil: port 0, the virtual address 10.91.0.77:22 is not served: it is the address of the host "10.91.0.77"
        /evil: port 0, the virtual address [fe80::1]:80 is not served: link-local addresses belong to the network itself
    "#]],
    );
}

#[test]
fn ports_of_an_app_beyond_the_limit_claim_nothing() {
    let ports: Vec<_> =
        (0..4).map(|n| json!({"port": 7000 + n, "protocol": "tcp", "labels": {"VIP_0": "10.91.0.99:1"}})).collect();
    let greedy = json!({"id": "/greedy", "networks": [{"mode": "host"}], "tasks": [task("g", &[1, 2, 3, 4])],
        "portDefinitions": ports});
    assert_reads(
        ClaimRules { max_ports_per_app: 3, ..rules() },
        json!([greedy, app("/web", 80, json!([task("w", &[9])]))]),
        expect![[r#"
            80/tcp /web
              w 10.0.0.9 9 Active
            7000/tcp /greedy
              g 10.0.0.9 1 Active
            7001/tcp /greedy
              g 10.0.0.9 2 Active
            10.91.0.99:1/tcp /greedy
              g 10.0.0.9 1 Active
            /greedy: it has more than 3 ports and virtual addresses: only the first 3 are served; --max-ports-per-app permits more
        "#]],
    );
}

/// An app without tasks says that its tasks would have the port on their own hosts; then an app that has the port takes
/// that over in a new definition, while its old tasks run.
#[test]
fn app_on_its_own_hosts_takes_the_port_from_no_other() {
    let fixed = |id: &str, tasks: Value| {
        json!({"id": id, "requirePorts": true, "networks": [{"mode": "host"}], "tasks": tasks,
            "portDefinitions": [{"port": 10005, "protocol": "tcp"}]})
    };
    let web = app("/team-a/web", 10005, json!([task("w1", &[31001]), task("w2", &[31002])]));
    assert_reads(
        ClaimRules::default(),
        json!([web, fixed("/team-b/x", json!([]))]),
        expect![[r#"
        10005/tcp /team-a/web
          w1 10.0.0.9 31001 Active
          w2 10.0.0.9 31002 Active
        /team-b/x: service port 10005/tcp is the port of its tasks on their own hosts, so they are not among its backends; --expose-host serves it on every host
    "#]],
    );
    assert_reads(
        ClaimRules::default(),
        json!([web, fixed("/team-b/x", json!([task("x", &[10005])]))]),
        expect![[r#"
            10005/tcp /team-a/web
              w1 10.0.0.9 31001 Active
              w2 10.0.0.9 31002 Active
            /team-b/x: service port 10005/tcp is the port of its tasks on their own hosts, so they are not among its backends; --expose-host serves it on every host
        "#]],
    );
    assert_reads(
        ClaimRules::default(),
        json!([fixed("/team-b/x", json!([task("x", &[10005])]))]),
        expect![[r#"
        /team-b/x: service port 10005/tcp is the port of its tasks on their own hosts, so it is not served; --expose-host serves it on every host
    "#]],
    );
}
