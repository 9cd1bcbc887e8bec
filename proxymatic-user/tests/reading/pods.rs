//! Section 4: pods.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::{app, options, snapshot, task, text, with};

/// The pod of the example, with labels for a service port and two virtual addresses.
fn pod(instances: Value) -> Value {
    let web = json!({"com.meltwater.proxymatic.servicePort": "1000", "com.meltwater.proxymatic.weight": "100",
        "VIP_0": "/p:80", "VIP_1": "192.0.2.1:80"});
    json!({"id": "/p", "status": "STABLE", "spec": {"id": "/p", "version": "2020-05-01T10:00:00.100Z",
        "networks": [{"mode": "container", "name": "ov"}, {"mode": "container", "name": "two"}],
        "containers": [
            {"name": "c1", "healthCheck": {"tcp": {"endpoint": "web"}}, "endpoints": [
                {"name": "web", "containerPort": 80, "hostPort": 0, "protocol": ["tcp"], "labels": web},
                {"name": "unlabelled", "containerPort": 81, "protocol": ["tcp"]}]},
            {"name": "c2", "endpoints": [{"name": "dns", "containerPort": 53, "protocol": ["tcp", "udp"],
                "networkNames": ["two"], "labels": {"com.meltwater.proxymatic.servicePort": 53}}]}]},
        "instances": instances})
}

/// An instance of that pod.
fn instance(fields: Value) -> Value {
    with(
        json!({"id": "p.instance-11", "status": "STABLE", "agentHostname": "a1.lan",
            "specReference": "/v2/pods/p::versions/2020-05-01T10:00:00.1Z",
            "networks": [{"name": "ov", "addresses": ["9.0.1.2"]}, {"name": "two", "addresses": ["fd00::2", "9.1.1.2"]}],
            "conditions": [], "containers": [c1(json!({})), c2(json!({}))]}),
        fields,
    )
}

fn c1(fields: Value) -> Value {
    let endpoints = json!([{"name": "web", "allocatedHostPort": 31005, "healthy": true}, {"name": "unlabelled"}]);
    with(json!({"name": "c1", "status": "TASK_RUNNING", "conditions": [], "endpoints": endpoints}), fields)
}

fn c2(fields: Value) -> Value {
    with(
        json!({"name": "c2", "status": "TASK_RUNNING", "containerId": "p.instance-11.c2", "conditions": [],
        "endpoints": [{"name": "dns"}]}),
        fields,
    )
}

fn reported(value: &str, reason: &str) -> Value {
    json!([{"name": "healthy", "value": value, "reason": reason}])
}

fn check(rows: Vec<(&str, Value, Expect)>) {
    for (name, pods, expected) in rows {
        println!("row: {name}");
        expected.assert_eq(&text(&snapshot(json!([]), json!([pods]), &options())));
    }
}

#[test]
fn section_4_joins_and_addresses() {
    let old = json!({"specReference": "/v2/pods/p::versions/2019-01-01T00:00:00.000Z",
        "containers": [c1(json!({"endpoints": [{"name": "old"}, {"name": "web"}]}))]});
    let gone = json!({"specReference": "/v2/pods/p::versions/2018-01-01T00:00:00.000Z"});
    check(vec![
        (
            "the example",
            pod(json!([instance(json!({}))])),
            expect![[r#"
            53/tcp /p
              p.instance-11.c2 9.1.1.2 53 Active
            53/udp /p
              p.instance-11.c2 9.1.1.2 53 Active
            80/tcp /p:80
              p.instance-11.c1 10.0.0.1 31005 Active weight 100
            1000/tcp /p
              p.instance-11.c1 10.0.0.1 31005 Active weight 100
            192.0.2.1:80/tcp /p
              p.instance-11.c1 10.0.0.1 31005 Active weight 100
        "#]],
        ),
        (
            "no instance",
            pod(json!([])),
            expect![[r#"
            53/tcp /p
            53/udp /p
            80/tcp /p:80
            1000/tcp /p
            192.0.2.1:80/tcp /p
        "#]],
        ),
        (
            "endpoints of the version it was started from",
            pod(json!([instance(old)])),
            expect![[r#"
            53/tcp /p
            53/udp /p
            80/tcp /p:80
            700/tcp /p
              p.instance-11.c1 9.0.1.2 7 Active
            1000/tcp /p
            192.0.2.1:80/tcp /p
        "#]],
        ),
        (
            "a version that is gone",
            pod(json!([instance(gone)])),
            expect![[r#"
            53/tcp /p
            53/udp /p
            80/tcp /p:80
            1000/tcp /p
            192.0.2.1:80/tcp /p
            /p: the definition of version 2018-01-01T00:00:00.000Z cannot be read: gone; the endpoints of the instances that still run it are not known, so they get no new connections
        "#]],
        ),
        (
            "hosts are names nobody knows",
            pod(json!([instance(json!({"agentHostname": "a2.lan"}))])),
            expect![[r#"
            53/tcp /p
              p.instance-11.c2 9.1.1.2 53 Active
            53/udp /p
              p.instance-11.c2 9.1.1.2 53 Active
            80/tcp /p:80
            1000/tcp /p
            192.0.2.1:80/tcp /p
            p.instance-11: endpoint "web": its host "a2.lan" has no known address: no such name (pod /p)
        "#]],
        ),
        (
            "a version in another precision is the same",
            pod(json!([instance(json!({"specReference": "/v2/pods/p::versions/2020-05-01T10:00:00.100Z",
                "containers": [c2(json!({}))]}))])),
            expect![[r#"
                53/tcp /p
                  p.instance-11.c2 9.1.1.2 53 Active
                53/udp /p
                  p.instance-11.c2 9.1.1.2 53 Active
                80/tcp /p:80
                1000/tcp /p
                192.0.2.1:80/tcp /p
            "#]],
        ),
        (
            "no agent",
            pod(json!([instance(json!({"agentHostname": null}))])),
            expect![[r#"
            53/tcp /p
              p.instance-11.c2 9.1.1.2 53 Active
            53/udp /p
              p.instance-11.c2 9.1.1.2 53 Active
            80/tcp /p:80
            1000/tcp /p
            192.0.2.1:80/tcp /p
            p.instance-11: endpoint "web": its host is missing, so its address is not known (pod /p)
        "#]],
        ),
        (
            "no addresses yet",
            pod(json!([instance(json!({"networks": [], "containers": [c2(json!({}))]}))])),
            expect![[r#"
            53/tcp /p
            53/udp /p
            80/tcp /p:80
            1000/tcp /p
            192.0.2.1:80/tcp /p
        "#]],
        ),
        (
            "endpoints are empty while it is not active",
            pod(json!([instance(json!({"containers": [c1(json!({"endpoints": []}))]}))])),
            expect![[r#"
            53/tcp /p
            53/udp /p
            80/tcp /p:80
            1000/tcp /p
            192.0.2.1:80/tcp /p
        "#]],
        ),
        (
            "what is no instance costs only itself",
            pod(json!([{"id": "x", "containers": 7}, 7, instance(json!({}))])),
            expect![[r#"
            53/tcp /p
              p.instance-11.c2 9.1.1.2 53 Active
            53/udp /p
              p.instance-11.c2 9.1.1.2 53 Active
            80/tcp /p:80
              p.instance-11.c1 10.0.0.1 31005 Active weight 100
            1000/tcp /p
              p.instance-11.c1 10.0.0.1 31005 Active weight 100
            192.0.2.1:80/tcp /p
              p.instance-11.c1 10.0.0.1 31005 Active weight 100
            /p: the description of an instance cannot be read: invalid type: integer `7`, expected struct PodInstance
            x: the description of an instance cannot be read: invalid type: integer `7`, expected a sequence
        "#]],
        ),
        (
            "what is no pod costs only itself",
            json!({"id": "/q", "spec": {"containers": {}}}),
            expect![[r#"
            /q: its description cannot be read, so it is left out: invalid type: map, expected a sequence
        "#]],
        ),
        (
            "bad labels and protocols cost only themselves",
            json!({"id": "/q", "spec": {"containers": [{"name": "c", "endpoints": [
                {"name": "a", "containerPort": 1, "protocol": ["sctp"], "labels": {"com.meltwater.proxymatic.servicePort": "9"}},
                {"name": "b", "containerPort": 1, "labels": {"com.meltwater.proxymatic.servicePort": "0", "VIP_0": "x",
                    "com.meltwater.proxymatic.servicport": "7"}}]}]}}),
            expect![[r#"
                /q: endpoint "a" has the protocols ["sctp"]; only tcp and udp are known
                /q: endpoint "b", label VIP_0=x: must be ip:port or /name:port; it is left out
                /q: endpoint "b", label com.meltwater.proxymatic.servicePort=0: must be a number from 1 to 65535; the port that Marathon assigned is used
                /q: endpoint "b", label com.meltwater.proxymatic.servicport=7: is unknown; the nearest known one is com.meltwater.proxymatic.servicePort
            "#]],
        ),
    ]);
}

#[test]
fn section_4_states() {
    // The rows need only one endpoint with one service port.
    let mut bare = pod(json!([]));
    bare["spec"]["containers"][0]["endpoints"][0]["labels"] = json!({"com.meltwater.proxymatic.servicePort": "1000"});
    bare["spec"]["containers"].as_array_mut().unwrap().truncate(1);
    let of = |instances: Value| with(bare.clone(), json!({ "instances": instances }));
    let only = |fields| of(json!([with(instance(json!({"containers": [c1(json!({}))]})), fields)]));
    let degraded = |container| only(json!({"status": "DEGRADED", "containers": [container]}));
    let silent = json!([{"name": "web", "allocatedHostPort": 31005}]);
    let failing = json!([{"name": "web", "allocatedHostPort": 31005, "healthy": false}]);
    check(vec![
        (
            "PENDING",
            only(json!({"status": "PENDING"})),
            expect![[r#"
                1000/tcp /p
                  p.instance-11.c1 10.0.0.1 31005 Warming
            "#]],
        ),
        (
            "STAGING",
            only(json!({"status": "STAGING"})),
            expect![[r#"
                1000/tcp /p
                  p.instance-11.c1 10.0.0.1 31005 Warming
            "#]],
        ),
        (
            "STABLE",
            only(json!({"status": "STABLE"})),
            expect![[r#"
                1000/tcp /p
                  p.instance-11.c1 10.0.0.1 31005 Active
            "#]],
        ),
        (
            "STABLE, no health",
            only(json!({"containers": [c1(json!({"endpoints": silent}))]})),
            expect![[r#"
                1000/tcp /p
                  p.instance-11.c1 10.0.0.1 31005 Active
            "#]],
        ),
        (
            "TERMINAL, its container runs until Mesos stops it",
            only(json!({"status": "TERMINAL"})),
            expect![[r#"
                1000/tcp /p
                  p.instance-11.c1 10.0.0.1 31005 Draining
            "#]],
        ),
        (
            "TERMINAL, its container is being killed",
            only(json!({"status": "TERMINAL", "containers": [c1(json!({"status": "TASK_KILLING"}))]})),
            expect![[r#"
                1000/tcp /p
                  p.instance-11.c1 10.0.0.1 31005 Draining
            "#]],
        ),
        (
            "PENDING, another container has failed and its own is being killed",
            only(json!({"status": "PENDING", "containers": [c1(json!({"status": "TASK_KILLING"})),
            {"name": "c2", "status": "TASK_FAILED", "endpoints": []}]})),
            expect![[r#"
                1000/tcp /p
                  p.instance-11.c1 10.0.0.1 31005 Draining
            "#]],
        ),
        (
            "PENDING, another container has failed and its own still runs",
            only(json!({"status": "PENDING", "containers": [c1(json!({})),
            {"name": "c2", "status": "TASK_FAILED", "endpoints": []}]})),
            expect![[r#"
                1000/tcp /p
                  p.instance-11.c1 10.0.0.1 31005 Draining
            "#]],
        ),
        (
            "DEGRADED by another container",
            degraded(c1(json!({}))),
            expect![[r#"
                1000/tcp /p
                  p.instance-11.c1 10.0.0.1 31005 Active
            "#]],
        ),
        (
            "DEGRADED, its endpoint is not healthy",
            degraded(c1(json!({"endpoints": failing}))),
            expect![[r#"
                1000/tcp /p
                  p.instance-11.c1 10.0.0.1 31005 Draining
            "#]],
        ),
        (
            "DEGRADED, its container is not healthy",
            degraded(c1(json!({"endpoints": silent,
            "conditions": reported("false", "health-reported-by-mesos")}))),
            expect![[r#"
                1000/tcp /p
                  p.instance-11.c1 10.0.0.1 31005 Draining
            "#]],
        ),
        (
            "DEGRADED, its check has not reported yet",
            degraded(c1(json!({"endpoints": failing,
            "conditions": reported("false", "health-unreported-by-mesos")}))),
            expect![[r#"
                1000/tcp /p
                  p.instance-11.c1 10.0.0.1 31005 Warming
            "#]],
        ),
        (
            "a check over http or by a command, without a result",
            with(
                only(json!({"containers": [c1(json!({"endpoints": silent, "conditions": []}))], "status": "DEGRADED"})),
                json!({"status": "DEGRADED"}),
            ),
            expect![[r#"
                1000/tcp /p
                  p.instance-11.c1 10.0.0.1 31005 Warming
            "#]],
        ),
        (
            "DEGRADED, its container has ended",
            degraded(c1(json!({"status": "TASK_FAILED"}))),
            expect![[r#"
                1000/tcp /p
            "#]],
        ),
        (
            "DEGRADED, its container is being killed",
            degraded(c1(json!({"status": "TASK_KILLING"}))),
            expect![[r#"
                1000/tcp /p
                  p.instance-11.c1 10.0.0.1 31005 Draining
            "#]],
        ),
        (
            "unreachable, alone",
            only(json!({"status": "DEGRADED", "message": "pod instance has become unreachable"})),
            expect![[r#"
                1000/tcp /p
                  p.instance-11.c1 10.0.0.1 31005 Active
            "#]],
        ),
        (
            "unreachable, others run",
            of(json!([
                instance(
                    json!({"id": "p.instance-12", "status": "DEGRADED", "message": "pod instance has become unreachable",
                "containers": [c1(json!({}))]})
                ),
                instance(json!({"containers": [c1(json!({}))]}))
            ])),
            expect![[r#"
                1000/tcp /p
                  p.instance-11.c1 10.0.0.1 31005 Active
                  p.instance-12.c1 10.0.0.1 31005 Draining
            "#]],
        ),
        (
            "a pod that is being deleted",
            with(only(json!({})), json!({"status": "TERMINAL"})),
            expect![[r#"
                1000/tcp /p
                  p.instance-11.c1 10.0.0.1 31005 Draining
            "#]],
        ),
        (
            "a word nobody knows",
            only(json!({"status": "SUPERPOSED"})),
            expect![[r#"
                1000/tcp /p
                  p.instance-11.c1 10.0.0.1 31005 Draining
                p.instance-11: its state "SUPERPOSED" is unknown; it gets no new connections
            "#]],
        ),
    ]);
}

#[test]
fn pod_and_app_may_share_a_service_port() {
    let canary = pod(json!([instance(json!({"containers": [c1(json!({}))]}))]));
    let snapshot = snapshot(json!([app("/web", 1000, json!([task("w", &[1])]))]), json!([canary]), &options());
    expect![[r#"
        53/tcp /p
        53/udp /p
        80/tcp /p:80
          p.instance-11.c1 10.0.0.1 31005 Active weight 100
        1000/tcp /web
          p.instance-11.c1 10.0.0.1 31005 Active weight 100
          w 10.0.0.9 1 Active
        192.0.2.1:80/tcp /p
          p.instance-11.c1 10.0.0.1 31005 Active weight 100
    "#]]
    .assert_eq(&text(&snapshot));
}
