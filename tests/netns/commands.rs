//! Every command that shows something, as table and as JSON, on a data plane that runs.

use expect_test::expect;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};

use crate::golden::Command;
use crate::served::{SERVICE, Served};

#[test]
fn what_each_command_prints_is_as_agreed() -> TestResult {
    let lab = Lab::start(2)?;
    let served = Served::start(&lab, 2)?;
    let second = served.replicas[1].address.to_string();
    lab.proxymatic(&["backend", "drain", &second])?.well()?;
    served.when_states(&["active", "draining"])?;
    let mut dialer = lab.host(1).dialer()?;
    assert_eq!(dialer.hold("held", 1, SERVICE)?, ["ok"]);
    let command = |arguments: &'static [&str], columns: &'static [&str], keys: &'static [&str]| Command {
        arguments,
        code: 0,
        columns,
        keys,
    };
    command(&["service", "show"], &[], &["task"]).prints(&lab, &expect![[""]], &expect![[""]])?;
    command(&["service", "show", "1234"], &[], &["task"]).prints(&lab, &expect![[""]], &expect![[""]])?;
    command(&["backend", "show", "web"], &["TASK"], &["task"]).prints(&lab, &expect![[""]], &expect![[""]])?;
    command(
        &["flow", "show", "--service", "web"],
        &["PID", "AGE", "RTT", "SENT", "RECEIVED"],
        &["pid", "cgroup", "local", "task", "age_s", "rtt_us", "sent", "received"],
    )
    .prints(&lab, &expect![[""]], &expect![[""]])?;
    command(
        &["hook", "show"],
        &["PROGRAM", "LINK", "RUNS", "MEAN_NS", "PIN"],
        &["program", "link", "runs", "mean_ns", "pin"],
    )
    .prints(&lab, &expect![[""]], &expect![[""]])?;
    command(&["map", "show"], &["ID"], &["id", "pin"]).prints(&lab, &expect![[""]], &expect![[""]])?;
    command(&["map", "dump", "FRONTENDS"], &[], &[]).prints(&lab, &expect![[""]], &expect![[""]])?;
    command(&["map", "dump", "backends"], &[], &[]).prints(&lab, &expect![[""]], &expect![[""]])?;
    command(&["map", "dump", "SERVICES"], &[], &[]).prints(&lab, &expect![[""]], &expect![[""]])?;
    command(&["map", "dump", "HEADS"], &["GENERATION", "BASE"], &["generation", "base"]).prints(
        &lab,
        &expect![[""]],
        &expect![[""]],
    )?;
    command(&["map", "dump", "SLOTS"], &["SLOT"], &["slot"]).prints(&lab, &expect![[""]], &expect![[""]])?;
    command(&["map", "dump", "LOAD"], &["RTT_US"], &["rtt_us"]).prints(&lab, &expect![[""]], &expect![[""]])?;
    command(&["map", "dump", "SERVICE_LOAD"], &["BOUND", "UNHEARD"], &["bound", "unheard"]).prints(
        &lab,
        &expect![[""]],
        &expect![[""]],
    )?;
    command(&["map", "dump", "DRAINED"], &[], &[]).prints(&lab, &expect![[""]], &expect![[""]])?;
    command(&["map", "dump", "PORTS"], &[], &[]).prints(&lab, &expect![[""]], &expect![[""]])?;
    command(&["map", "dump", "SOCKETS"], &["LOCAL", "PID"], &["local", "pid"]).prints(
        &lab,
        &expect![[""]],
        &expect![[""]],
    )?;
    command(&["map", "dump", "SERVICE_NAMES"], &[], &[]).prints(&lab, &expect![[""]], &expect![[""]])?;
    command(&["map", "dump", "BACKEND_NAMES"], &["NAME"], &["name"]).prints(&lab, &expect![[""]], &expect![[""]])?;
    command(&["map", "dump", "CONFIG"], &["VALUE"], &["value"]).prints(&lab, &expect![[""]], &expect![[""]])?;
    command(&["map", "dump", "COUNTERS"], &["COUNT"], &["count"]).prints(&lab, &expect![[""]], &expect![[""]])?;
    command(&["map", "dump", "AFFINITY"], &[], &[]).prints(&lab, &expect![[""]], &expect![[""]])?;
    command(&["map", "dump", "ALLOW"], &[], &[]).prints(&lab, &expect![[""]], &expect![[""]])?;
    command(&["map", "dump", "ALLOW_CGROUPS"], &[], &[]).prints(&lab, &expect![[""]], &expect![[""]])?;
    command(&["map", "dump", "EXCLUDED"], &[], &[]).prints(&lab, &expect![[""]], &expect![[""]])?;
    command(&["map", "dump", "ADDRESSES"], &["ADDRESS"], &["address"]).prints(&lab, &expect![[""]], &expect![[""]])?;
    Ok(())
}

#[test]
fn what_is_wrong_on_a_command_line_is_one_line_and_exit_code_2() -> TestResult {
    let lab = Lab::start(1)?;
    for (arguments, part) in [
        (&["servic"][..], "the nearest is service"),
        (&["service", "shwo"], "the nearest is show"),
        (&["service", "show", "--jsn"], "the nearest is --json"),
        (&["map", "dump", "BACKEND"], "the nearest name is BACKENDS"),
        (&["top"], "top needs a terminal"),
        // Nothing is pinned here.
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
        let said: serde_json::Value = serde_json::from_str(&left.stdout)?;
        assert!(left.stderr.is_empty() && said["error"].as_str().is_some_and(|it| it.contains(part)), "{left:?}");
    }
    Ok(())
}

#[test]
fn help_is_there_at_every_level_and_is_no_error() -> TestResult {
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
fn a_user_who_may_not_read_the_pins_is_told_to_be_root() -> TestResult {
    let lab = Lab::start(2)?;
    let _served = Served::start(&lab, 1)?;
    let host = lab.host(1);
    let program = proxymatic_tests::lab::binary("proxymatic")?;
    let pins = host.pins().display().to_string();
    // As a copy, where anybody may run it.
    let copy = tempfile::tempdir()?;
    std::fs::set_permissions(copy.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let there = copy.path().join("proxymatic");
    std::fs::copy(program, &there)?;
    let there = there.display().to_string();
    for object in ["service", "flow", "map", "status", "hook"] {
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", &there, "--bpffs", &pins, object];
        let left = host.run(std::path::Path::new("setpriv"), &nobody, PATIENCE)?;
        let told = left.stderr.contains("is not for this user to read; run it as root");
        assert!(left.status.code() == Some(2) && told, "{object}: {left:?}");
    }
    Ok(())
}
