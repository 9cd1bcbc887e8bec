//! Output of `status`: without problems, with many problems, and without an agent.

use expect_test::expect;
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};
use serde_json::{Value, json};

use crate::fixtures::cluster::{Cluster, SERVICE, when_ejected};
use crate::golden::Command;

/// Words that precede a number that differs in each run.
const WORDS: [&str; 7] = ["process ", "answered ", "SLOTS ", "translated ", "panicked ", "out for ", "data plane "];
const KEYS: [&str; 9] =
    ["pid", "answered_s", "out_s", "used", "translated", "panic_mode", "reverse_translated", "attempts", "abi"];

fn status<'a>() -> Command<'a> {
    Command::well(&["status"], &[], &KEYS).sentences(&WORDS)
}

/// The command waits for an answer of the agent for three seconds only.
fn agent_answers(said: &str) -> bool {
    said.contains("agent      OK") || said.contains(r#""state":"OK""#)
}

/// The agent renews an ejection each second, for three seconds: one may lapse for a moment on a busy machine.
fn agent_answers_and_one_is_ejected(said: &str) -> bool {
    agent_answers(said) && (said.contains("10.77.0.2:8001 once, out for") || said.contains(r#""times":1"#))
}

#[test]
fn status_without_problems_begins_with_ok() -> TestResult {
    let lab = Lab::start(2)?;
    let _cluster = Cluster::start(&lab, 2)?;
    status().once(agent_answers).prints(&lab, &expect![[r#"
        OK         no problems
        hooks      connect6, connect4, sendmsg6, sendmsg4, post_bind6, post_bind4, recvmsg6, recvmsg4, getpeername6, getpeername4, tcp_states, sock_release
        agent      OK, process *
        source     marathon: answered * s ago
        self-test  switched off (--self-test 0)
        services   1; backends: 2 active
        maps       SERVICES 1 of 16384, BACKENDS 2 of 65536, SLOTS * of 1048576, ADDRESSES 2 of 4096, SOURCE_RANGES 0 of 65536, SOURCE_CGROUPS 0 of 16384, EXCLUDED 0 of 1024
        verdicts   none
        versions   agent 0.1.0, data plane *, this command 0.1.0
    "#]], &expect![[r#"
        {
          "abi": "*",
          "agent": {
            "ejected": [],
            "pid": "*",
            "refused": null,
            "remote_connections": null,
            "self_test": {
              "error": null,
              "every_s": 0,
              "impossible": null,
              "succeeded_s": null
            },
            "sources": [
              {
                "answered_s": "*",
                "restored": null,
                "source": "marathon",
                "trouble": null
              }
            ],
            "state": "OK",
            "version": "0.1.0",
            "warnings": []
          },
          "backends": {
            "active": 2
          },
          "drained": [],
          "ejected": [],
          "hooks": [
            "connect6",
            "connect4",
            "sendmsg6",
            "sendmsg4",
            "post_bind6",
            "post_bind4",
            "recvmsg6",
            "recvmsg4",
            "getpeername6",
            "getpeername4",
            "tcp_states",
            "sock_release"
          ],
          "maps": [
            {
              "entries": 16384,
              "map": "SERVICES",
              "used": "*"
            },
            {
              "entries": 65536,
              "map": "BACKENDS",
              "used": "*"
            },
            {
              "entries": 1048576,
              "map": "SLOTS",
              "used": "*"
            },
            {
              "entries": 4096,
              "map": "ADDRESSES",
              "used": "*"
            },
            {
              "entries": 65536,
              "map": "SOURCE_RANGES",
              "used": "*"
            },
            {
              "entries": 16384,
              "map": "SOURCE_CGROUPS",
              "used": "*"
            },
            {
              "entries": 1024,
              "map": "EXCLUDED",
              "used": "*"
            }
          ],
          "problems": [],
          "services": 1,
          "verdicts": {
            "abandoned": 0,
            "affinity_hit": 0,
            "backends_full": 0,
            "bind_refused": 0,
            "bound_loopback": 0,
            "bypassed": 0,
            "conntrack_full": 0,
            "drained": 0,
            "ejected": 0,
            "ejection_capped": 0,
            "event_dropped": 0,
            "failed": 0,
            "forwarded": 0,
            "forwarded_local": 0,
            "forwarded_xdp": 0,
            "icmp_error_forwarded": 0,
            "local_listener": 0,
            "mtu_exceeded": 0,
            "no_backend": 0,
            "no_return_path": 0,
            "no_route": 0,
            "no_socket_state": 0,
            "not_allowed": 0,
            "not_exposed": 0,
            "panic_mode": "*",
            "port_bound": 0,
            "reverse_translated": "*",
            "rewrite_failed": 0,
            "service_full": 0,
            "snat_port_preempted": 0,
            "snat_ports_exhausted": 0,
            "stale_close": 0,
            "stale_slot": 0,
            "translated": "*",
            "ttl_exceeded": 0,
            "udp_cached": 0,
            "unknown_fragment": 0,
            "unknown_netns": 0,
            "unreadable": 0
          },
          "version": "0.1.0",
          "warnings": []
        }
    "#]])?;
    Ok(())
}

#[test]
fn status_lists_problems_first_with_remedies() -> TestResult {
    let lab = Lab::start(2)?;
    let heavy = json!({ "labels": { "com.meltwater.proxymatic.port.0.weight": "heavy" } });
    // When the agent polls, it reports another failure than that of the events.
    let mut cluster = Cluster::on(&lab, lab.sim()?, 3, heavy, &["--refresh-interval", "3600"])?;
    cluster.when_active(&[0, 1, 2])?;
    cluster.sim.app("/idle", 1235, &[])?;
    lab.service_when("nobody serves /idle", "/idle", |idle| idle.backends.is_empty())?;
    lab.proxymatic(&["backend", "drain", &cluster.replicas[2].address.to_string()])?.well()?;
    cluster.replicas[0].process.kill9()?;
    let mut client = lab.host(1).tcp_client()?;
    when_ejected(&lab, &mut client)?;
    cluster.when_states(&["ejected", "active", "draining"])?;
    // Its peer's name is counted.
    assert_eq!(client.tell(&format!("who 1 {SERVICE}"))?, "b");
    cluster.sim.process.kill9()?;
    // The event stream ends first, and may be reported before the reads that fail too.
    eventually_ok("the status reports that Marathon is away", PATIENCE, || {
        lab.host(1).trouble("apps refused the connection").map(drop)
    })?;
    status().unwell().once(agent_answers_and_one_is_ejected).prints(&lab, &expect![[r#"
        PROBLEM    marathon: http://10.77.0.1:8080/v2/apps refused the connection; does Marathon run there?
        PROBLEM    /idle 1235/tcp has no backend that takes traffic: check its state in marathon
        hooks      connect6, connect4, sendmsg6, sendmsg4, post_bind6, post_bind4, recvmsg6, recvmsg4, getpeername6, getpeername4, tcp_states, sock_release
        agent      OK, process *
        source     marathon: answered * s ago
        self-test  switched off (--self-test 0)
        services   2; backends: 1 active, 1 draining, 1 ejected
        warning    /web: label com.meltwater.proxymatic.port.0.weight=heavy: must be a number from 0 to 1000; the default of 500 is used
        ejected    /web: 10.77.0.2:8001 once, out for *
        drained    10.77.0.2:8003 by the operator, until `proxymatic backend undrain 10.77.0.2:8003`
        maps       SERVICES 2 of 16384, BACKENDS 3 of 65536, SLOTS * of 1048576, ADDRESSES 2 of 4096, SOURCE_RANGES 0 of 65536, SOURCE_CGROUPS 0 of 16384, EXCLUDED 0 of 1024
        verdicts   ejected 1, failed 1, reverse_translated *, translated *
        versions   agent 0.1.0, data plane *, this command 0.1.0
    "#]], &expect![[r#"
        {
          "abi": "*",
          "agent": {
            "ejected": [
              {
                "backend": "10.77.0.2:8001",
                "out_s": "*",
                "service": "/web"
              }
            ],
            "pid": "*",
            "refused": null,
            "remote_connections": null,
            "self_test": {
              "error": null,
              "every_s": 0,
              "impossible": null,
              "succeeded_s": null
            },
            "sources": [
              {
                "answered_s": "*",
                "restored": null,
                "source": "marathon",
                "trouble": {
                  "attempts": "*",
                  "reason": "http://10.77.0.1:8080/v2/apps refused the connection; does Marathon run there?",
                  "url": "http://10.77.0.1:8080/v2/apps"
                }
              }
            ],
            "state": "OK",
            "version": "0.1.0",
            "warnings": [
              {
                "app": "/web",
                "reason": "label com.meltwater.proxymatic.port.0.weight=heavy: must be a number from 0 to 1000; the default of 500 is used"
              }
            ]
          },
          "backends": {
            "active": 1,
            "draining": 1,
            "ejected": 1
          },
          "drained": [
            "10.77.0.2:8003"
          ],
          "ejected": [
            {
              "backend": "10.77.0.2:8001",
              "out_s": "*",
              "service": "/web",
              "times": 1
            }
          ],
          "hooks": [
            "connect6",
            "connect4",
            "sendmsg6",
            "sendmsg4",
            "post_bind6",
            "post_bind4",
            "recvmsg6",
            "recvmsg4",
            "getpeername6",
            "getpeername4",
            "tcp_states",
            "sock_release"
          ],
          "maps": [
            {
              "entries": 16384,
              "map": "SERVICES",
              "used": "*"
            },
            {
              "entries": 65536,
              "map": "BACKENDS",
              "used": "*"
            },
            {
              "entries": 1048576,
              "map": "SLOTS",
              "used": "*"
            },
            {
              "entries": 4096,
              "map": "ADDRESSES",
              "used": "*"
            },
            {
              "entries": 65536,
              "map": "SOURCE_RANGES",
              "used": "*"
            },
            {
              "entries": 16384,
              "map": "SOURCE_CGROUPS",
              "used": "*"
            },
            {
              "entries": 1024,
              "map": "EXCLUDED",
              "used": "*"
            }
          ],
          "problems": [
            "marathon: http://10.77.0.1:8080/v2/apps refused the connection; does Marathon run there?",
            "/idle 1235/tcp has no backend that takes traffic: check its state in marathon"
          ],
          "services": 2,
          "verdicts": {
            "abandoned": 0,
            "affinity_hit": 0,
            "backends_full": 0,
            "bind_refused": 0,
            "bound_loopback": 0,
            "bypassed": 0,
            "conntrack_full": 0,
            "drained": 0,
            "ejected": 1,
            "ejection_capped": 0,
            "event_dropped": 0,
            "failed": 1,
            "forwarded": 0,
            "forwarded_local": 0,
            "forwarded_xdp": 0,
            "icmp_error_forwarded": 0,
            "local_listener": 0,
            "mtu_exceeded": 0,
            "no_backend": 0,
            "no_return_path": 0,
            "no_route": 0,
            "no_socket_state": 0,
            "not_allowed": 0,
            "not_exposed": 0,
            "panic_mode": "*",
            "port_bound": 0,
            "reverse_translated": "*",
            "rewrite_failed": 0,
            "service_full": 0,
            "snat_port_preempted": 0,
            "snat_ports_exhausted": 0,
            "stale_close": 0,
            "stale_slot": 0,
            "translated": "*",
            "ttl_exceeded": 0,
            "udp_cached": 0,
            "unknown_fragment": 0,
            "unknown_netns": 0,
            "unreadable": 0
          },
          "version": "0.1.0",
          "warnings": [
            {
              "app": "/web",
              "reason": "label com.meltwater.proxymatic.port.0.weight=heavy: must be a number from 0 to 1000; the default of 500 is used"
            }
          ]
        }
    "#]])?;
    Ok(())
}

#[test]
fn status_without_an_agent_is_read_from_the_pins() -> TestResult {
    let lab = Lab::start(2)?;
    let mut cluster = Cluster::start(&lab, 2)?;
    let with = status().once(agent_answers).json(&lab)?;
    cluster.agent.kill9()?;
    status().unwell().prints_table(&lab, &expect![[r#"
        PROBLEM    no agent answers: hooks serve the last published state; start an agent (proxymatic run)
        hooks      connect6, connect4, sendmsg6, sendmsg4, post_bind6, post_bind4, recvmsg6, recvmsg4, getpeername6, getpeername4, tcp_states, sock_release
        agent      none
        services   1; backends: 2 active
        maps       SERVICES 1 of 16384, BACKENDS 2 of 65536, SLOTS * of 1048576, ADDRESSES 2 of 4096, SOURCE_RANGES 0 of 65536, SOURCE_CGROUPS 0 of 16384, EXCLUDED 0 of 1024
        verdicts   none
        versions   data plane *, this command 0.1.0
    "#]])?;
    let mut without = with;
    without["agent"] = Value::Null;
    without["problems"] =
        json!(["no agent answers: hooks serve the last published state; start an agent (proxymatic run)"]);
    assert_eq!(status().unwell().json(&lab)?, without);
    Ok(())
}
