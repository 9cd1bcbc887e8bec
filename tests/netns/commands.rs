//! Output of every command that shows something, as table and as JSON, on a running data plane.

/// `feature`.
mod features;
/// `map`.
mod maps;
/// `status`.
mod status;

use anyhow::{Result, ensure};
use expect_test::expect;
use proxymatic_common::ABI_VERSION;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, SocketProgram};
use serde_json::{Value, json};

use crate::fixtures::cluster::{Cluster, SERVICE};
use crate::golden::Command;

/// A service with two replicas: one is drained, one has a connection. No agent runs, so nothing changes during the
/// test.
fn quiet(lab: &Lab) -> Result<(Cluster<'_>, SocketProgram)> {
    // The slots would depend on which backend answers first.
    let mut cluster = Cluster::on(lab, lab.sim()?, 2, json!({}), &["--first-answer", "0"])?;
    cluster.when_active(&[0, 1])?;
    cluster.agent.kill9()?;
    let second = cluster.replicas[1].address.to_string();
    lab.proxymatic(&["backend", "drain", &second])?.well()?;
    cluster.when_states(&["active", "draining"])?;
    let mut client = lab.host(1).tcp_client()?;
    ensure!(client.hold("held", 1, SERVICE)? == ["ok"], "not connected");
    Ok((cluster, client))
}

#[test]
fn command_output_matches_golden() -> TestResult {
    let lab = Lab::start(2)?;
    let (_cluster, _client) = quiet(&lab)?;
    Command::well(&["service", "show"], &[], &["task"]).prints(&lab, &expect![[r#"
        SERVICE  PORT  POLICY  BACKEND  STATE  WEIGHT  ACTIVE  TOTAL
        /web  1234/tcp  leastconn  10.77.0.2:8001  active  500  1  1
        10.77.0.2:8002  draining  500  0  0
    "#]], &expect![[r#"
        {"address":null,"backends":[{"active":1,"address":"10.77.0.2","failed":0,"maxconn":0,"port":8001,"state":"active","task":"*","total":1,"weight":500},{"active":0,"address":"10.77.0.2","failed":0,"maxconn":0,"port":8002,"state":"draining","task":"*","total":0,"weight":500}],"name":"/web","policy":"leastconn","port":1234,"protocol":"tcp","source":"marathon"}
    "#]])?;
    Command::well(&["service", "show", "1234"], &[], &["task"]).prints(&lab, &expect![[r#"
        SERVICE  PORT  POLICY  BACKEND  STATE  WEIGHT  ACTIVE  TOTAL
        /web  1234/tcp  leastconn  10.77.0.2:8001  active  500  1  1
        10.77.0.2:8002  draining  500  0  0
    "#]], &expect![[r#"
        {"address":null,"backends":[{"active":1,"address":"10.77.0.2","failed":0,"maxconn":0,"port":8001,"state":"active","task":"*","total":1,"weight":500},{"active":0,"address":"10.77.0.2","failed":0,"maxconn":0,"port":8002,"state":"draining","task":"*","total":0,"weight":500}],"name":"/web","policy":"leastconn","port":1234,"protocol":"tcp","source":"marathon"}
    "#]])?;
    Command::well(&["backend", "show", "web"], &["TASK"], &["task"]).prints(&lab, &expect![[r#"
        BACKEND  SERVICE  STATE  ACTIVE  TOTAL  MAXCONN  TASK
        10.77.0.2:8001  /web  active  1  1  -  *
        10.77.0.2:8002  /web  draining  0  0  -  *
    "#]], &expect![[r#"
        {"active":1,"address":"10.77.0.2","failed":0,"maxconn":0,"port":8001,"service":"/web","state":"active","task":"*","total":1,"weight":500}
        {"active":0,"address":"10.77.0.2","failed":0,"maxconn":0,"port":8002,"service":"/web","state":"draining","task":"*","total":0,"weight":500}
    "#]])?;
    Command::well(
        &["flow", "show", "--service", "web"],
        &["PID", "AGE", "RTT", "SENT", "RECEIVED"],
        &["pid", "cgroup", "local", "task", "age_s", "rtt_us", "sent", "received"],
    )
    .prints(&lab, &expect![[r#"
        SERVICE  PID  COMMAND  DESTINATION  BACKEND  AGE  RTT  SENT  RECEIVED
        /web  *  tcp-client  127.0.0.1:1234/tcp  10.77.0.2:8001  *  *  *  *
    "#]], &expect![[r#"
        {"age_s":"*","backend":"10.77.0.2:8001","cgroup":"*","client":null,"command":"tcp-client","destination":"127.0.0.1:1234","local":"*","pid":"*","protocol":"tcp","received":"*","rtt_us":"*","sent":"*","service":"/web","task":"*"}
    "#]])?;
    Command::well(
        &["hook", "show"],
        &["PROGRAM", "LINK", "RUNS", "MEAN_NS", "PIN"],
        &["program", "link", "runs", "pin"],
    )
    // The kernel measures for all tests if one of them asks for it.
    .nullable(&["mean_ns"])
    .prints(
        &lab,
        &expect![[r#"
        HOOK  PROGRAM  LINK  EFFECTIVE  RUNS  MEAN_NS  PIN
        connect6  *  *  yes  *  *  *
        connect4  *  *  yes  *  *  *
        sendmsg6  *  *  yes  *  *  *
        sendmsg4  *  *  yes  *  *  *
        post_bind6  *  *  yes  *  *  *
        post_bind4  *  *  yes  *  *  *
        recvmsg6  *  *  yes  *  *  *
        recvmsg4  *  *  yes  *  *  *
        getpeername6  *  *  yes  *  *  *
        getpeername4  *  *  yes  *  *  *
        tcp_states  *  *  yes  *  *  *
        sock_release  *  *  yes  *  *  *
    "#]],
        &expect![[r#"
        {"effective":true,"hook":"connect6","interface":null,"link":"*","mean_ns":"*","pin":"*","program":"*","runs":"*"}
        {"effective":true,"hook":"connect4","interface":null,"link":"*","mean_ns":"*","pin":"*","program":"*","runs":"*"}
        {"effective":true,"hook":"sendmsg6","interface":null,"link":"*","mean_ns":"*","pin":"*","program":"*","runs":"*"}
        {"effective":true,"hook":"sendmsg4","interface":null,"link":"*","mean_ns":"*","pin":"*","program":"*","runs":"*"}
        {"effective":true,"hook":"post_bind6","interface":null,"link":"*","mean_ns":"*","pin":"*","program":"*","runs":"*"}
        {"effective":true,"hook":"post_bind4","interface":null,"link":"*","mean_ns":"*","pin":"*","program":"*","runs":"*"}
        {"effective":true,"hook":"recvmsg6","interface":null,"link":"*","mean_ns":"*","pin":"*","program":"*","runs":"*"}
        {"effective":true,"hook":"recvmsg4","interface":null,"link":"*","mean_ns":"*","pin":"*","program":"*","runs":"*"}
        {"effective":true,"hook":"getpeername6","interface":null,"link":"*","mean_ns":"*","pin":"*","program":"*","runs":"*"}
        {"effective":true,"hook":"getpeername4","interface":null,"link":"*","mean_ns":"*","pin":"*","program":"*","runs":"*"}
        {"effective":true,"hook":"tcp_states","interface":null,"link":"*","mean_ns":"*","pin":"*","program":"*","runs":"*"}
        {"effective":true,"hook":"sock_release","interface":null,"link":"*","mean_ns":"*","pin":"*","program":"*","runs":"*"}
    "#]],
    )?;
    Ok(())
}

#[test]
fn drain_and_detach_output_matches_golden() -> TestResult {
    let lab = Lab::start(2)?;
    let mut cluster = Cluster::start(&lab, 1)?;
    let first = cluster.replicas[0].address.to_string();
    let drain = ["backend", "drain", &first];
    Command::well(&drain, &["TASK"], &["task"]).unwell().prints(&lab, &expect![[r#"
        PROBLEM  /web has no other backend that is active, so new connections still go to draining ones;
        undrain one, or scale it up
        BACKEND  SERVICE  STATE  ACTIVE  TOTAL  MAXCONN  TASK
        10.77.0.2:8001  /web  draining  0  0  -  *
    "#]], &expect![[r#"
        {
          "backends": [
            {
              "active": 0,
              "address": "10.77.0.2",
              "failed": 0,
              "maxconn": 0,
              "port": 8001,
              "service": "/web",
              "state": "draining",
              "task": "*",
              "total": 0,
              "weight": 500
            }
          ],
          "warnings": [
            "/web has no other backend that is active, so new connections still go to draining ones; undrain one, or scale it up"
          ]
        }
    "#]])?;
    // Writes of the agent that are under way would undo a change.
    cluster.drains_published(1)?;
    let undrain = ["backend", "undrain", &first];
    Command::well(&undrain, &["TASK"], &["task"]).prints(
        &lab,
        &expect![[r#"
        BACKEND  SERVICE  STATE  ACTIVE  TOTAL  MAXCONN  TASK
        10.77.0.2:8001  /web  active  0  0  -  *
    "#]],
        &expect![[r#"
        {
          "backends": [
            {
              "active": 0,
              "address": "10.77.0.2",
              "failed": 0,
              "maxconn": 0,
              "port": 8001,
              "service": "/web",
              "state": "active",
              "task": "*",
              "total": 0,
              "weight": 500
            }
          ],
          "warnings": []
        }
    "#]],
    )?;
    cluster.agent.terminate(PATIENCE)?;
    let pins = format!("{}/v{ABI_VERSION}", lab.host(1).pins().display());
    let pins = [(pins.as_str(), "PINS")];
    Command::well(&["detach"], &[], &[]).calling(&pins).prints_table(
        &lab,
        &expect![[r#"
            removed PINS/links/connect6
            removed PINS/links/connect4
            removed PINS/links/sendmsg6
            removed PINS/links/sendmsg4
            removed PINS/links/post_bind6
            removed PINS/links/post_bind4
            removed PINS/links/recvmsg6
            removed PINS/links/recvmsg4
            removed PINS/links/getpeername6
            removed PINS/links/getpeername4
            removed PINS/links/tcp_states
            removed PINS/links/sock_release
            removed PINS/programs/connect6
            removed PINS/programs/connect4
            removed PINS/programs/sendmsg6
            removed PINS/programs/sendmsg4
            removed PINS/programs/post_bind6
            removed PINS/programs/post_bind4
            removed PINS/programs/recvmsg6
            removed PINS/programs/recvmsg4
            removed PINS/programs/getpeername6
            removed PINS/programs/getpeername4
            removed PINS/programs/tcp_states
            removed PINS/programs/sock_release
            removed PINS/maps/CONFIG
            removed PINS/maps/PORTS
            removed PINS/maps/ADDRESSES
            removed PINS/maps/FRONTENDS
            removed PINS/maps/SLOT_RANGES
            removed PINS/maps/SERVICES
            removed PINS/maps/SERVICE_STATS
            removed PINS/maps/SLOTS
            removed PINS/maps/BACKENDS
            removed PINS/maps/BACKEND_STATS
            removed PINS/maps/SOCKETS
            removed PINS/maps/AFFINITY
            removed PINS/maps/SOURCE_RANGES
            removed PINS/maps/SOURCE_CGROUPS
            removed PINS/maps/NETNS_ADDRESSES
            removed PINS/maps/EXCLUDED
            removed PINS/maps/LISTENERS
            removed PINS/maps/DIRECT_PEERS
            removed PINS/maps/EVENTS
            removed PINS/maps/COUNTERS
            removed PINS/maps/CONNTRACK
            removed PINS/maps/CT_HALF_OPEN
            removed PINS/maps/CONNTRACK_LOCKS
            removed PINS/maps/FRAGMENTS
            removed PINS/maps/SCRATCH
            removed PINS/maps/INTERFACES
            removed PINS/maps/REPLY_PORTS
            removed PINS/maps/SERVICE_NAMES
            removed PINS/maps/DRAINED
            removed PINS/maps/BACKEND_NAMES
        "#]],
    )?;
    cluster.start_agent()?;
    cluster.agent.terminate(PATIENCE)?;
    Command::well(&["detach"], &[], &[]).calling(&pins).prints_json(
        &lab,
        &expect![[r#"
            {
              "removed": [
                "PINS/links/connect6",
                "PINS/links/connect4",
                "PINS/links/sendmsg6",
                "PINS/links/sendmsg4",
                "PINS/links/post_bind6",
                "PINS/links/post_bind4",
                "PINS/links/recvmsg6",
                "PINS/links/recvmsg4",
                "PINS/links/getpeername6",
                "PINS/links/getpeername4",
                "PINS/links/tcp_states",
                "PINS/links/sock_release",
                "PINS/programs/connect6",
                "PINS/programs/connect4",
                "PINS/programs/sendmsg6",
                "PINS/programs/sendmsg4",
                "PINS/programs/post_bind6",
                "PINS/programs/post_bind4",
                "PINS/programs/recvmsg6",
                "PINS/programs/recvmsg4",
                "PINS/programs/getpeername6",
                "PINS/programs/getpeername4",
                "PINS/programs/tcp_states",
                "PINS/programs/sock_release",
                "PINS/maps/CONFIG",
                "PINS/maps/PORTS",
                "PINS/maps/ADDRESSES",
                "PINS/maps/FRONTENDS",
                "PINS/maps/SLOT_RANGES",
                "PINS/maps/SERVICES",
                "PINS/maps/SERVICE_STATS",
                "PINS/maps/SLOTS",
                "PINS/maps/BACKENDS",
                "PINS/maps/BACKEND_STATS",
                "PINS/maps/SOCKETS",
                "PINS/maps/AFFINITY",
                "PINS/maps/SOURCE_RANGES",
                "PINS/maps/SOURCE_CGROUPS",
                "PINS/maps/NETNS_ADDRESSES",
                "PINS/maps/EXCLUDED",
                "PINS/maps/LISTENERS",
                "PINS/maps/DIRECT_PEERS",
                "PINS/maps/EVENTS",
                "PINS/maps/COUNTERS",
                "PINS/maps/CONNTRACK",
                "PINS/maps/CT_HALF_OPEN",
                "PINS/maps/CONNTRACK_LOCKS",
                "PINS/maps/FRAGMENTS",
                "PINS/maps/SCRATCH",
                "PINS/maps/INTERFACES",
                "PINS/maps/REPLY_PORTS",
                "PINS/maps/SERVICE_NAMES",
                "PINS/maps/DRAINED",
                "PINS/maps/BACKEND_NAMES"
              ]
            }
        "#]],
    )?;
    Ok(())
}

#[test]
fn command_line_error_is_one_line_and_exit_code_2() -> TestResult {
    let lab = Lab::start(1)?;
    for (arguments, part) in [
        (&["servic"][..], "the nearest is service"),
        (&["service", "shwo"], "the nearest is show"),
        (&["service", "show", "--jsn"], "the nearest is --json"),
        (&["map", "dump", "BACKEND"], "the nearest name is BACKENDS"),
        (&["top"], "top needs a terminal"),
        // Nothing is pinned at this path.
        (&["service"], "start the agent there (proxymatic run)"),
        (&["flow"], "start the agent there (proxymatic run)"),
        (&["hook"], "start the agent there (proxymatic run)"),
        (&["map"], "start the agent there (proxymatic run)"),
        (&["event", "watch"], "start the agent there (proxymatic run)"),
        (&["backend", "drain", "10.0.0.1:80"], "start the agent there (proxymatic run)"),
    ] {
        let left = lab.proxymatic(arguments)?;
        assert!(left.status.code() == Some(2) && left.stdout.is_empty(), "{arguments:?}: {left:?}");
        assert!(left.stderr.lines().count() == 1 && left.stderr.contains(part), "{arguments:?}: {left:?}");
        let left = lab.proxymatic(&[&["-j"], arguments].concat())?;
        let said: Value = serde_json::from_str(&left.stdout)?;
        assert!(left.stderr.is_empty() && said["error"].as_str().is_some_and(|it| it.contains(part)), "{left:?}");
    }
    Ok(())
}

#[test]
fn help_at_every_level_exits_with_0() -> TestResult {
    let lab = Lab::start(1)?;
    for arguments in
        [&["help"][..], &["--help"], &["service", "help"], &["service", "show", "--help"], &["help", "map"]]
    {
        let left = lab.proxymatic(arguments)?.well()?;
        assert!(left.stdout.contains("Usage:") && left.stderr.is_empty(), "{arguments:?}: {left:?}");
    }
    Ok(())
}

#[test]
fn user_without_access_to_pins_is_advised_to_be_root() -> TestResult {
    let lab = Lab::start(2)?;
    let _cluster = Cluster::start(&lab, 1)?;
    let host = lab.host(1);
    let program = proxymatic_tests::lab::binary("proxymatic")?;
    let pins = host.pins().display().to_string();
    // A copy of the program in a folder that every user may read.
    let copy = tempfile::tempdir()?;
    std::fs::set_permissions(copy.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let there = copy.path().join("proxymatic");
    std::fs::copy(program, &there)?;
    let there = there.display().to_string();
    for object in ["service", "flow", "map", "status", "hook"] {
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", &there, "--bpffs", &pins, object];
        let left = host.run(std::path::Path::new("setpriv"), &nobody, PATIENCE)?;
        let told = left.stderr.contains("this user may not read ") && left.stderr.contains("; run it as root");
        assert!(left.status.code() == Some(2) && told, "{object}: {left:?}");
    }
    Ok(())
}
