//! `plan show` against published maps: empty if in sync, else exactly the writes of the next agent.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use expect_test::expect;
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, binary};
use proxymatic_tests::process::Finished;
use proxymatic_user::dataplane::kernel::{Maps, Pins};
use serde_json::{Value, json};

use crate::fixtures::cluster::{APP, Cluster, backend_id, eject_for_an_hour};
use crate::golden::Command;

#[test]
fn plan_against_maps_in_sync_is_empty() -> TestResult {
    let lab = Lab::start(2)?;
    let _web = Cluster::start(&lab, 2)?;
    let plan = plan(&lab)?;
    assert_eq!(plan["operations"], json!([]), "{plan}");
    assert_eq!((&plan["services"][0]["name"], backends(&plan)), (&json!(APP), 2), "{plan}");
    let said = lab.proxymatic(&["plan", "--marathon", &lab.marathon_url()])?.well()?.stdout;
    let against = format!("compared with what is pinned under {}", lab.host(1).pins().display());
    assert!(said.contains(&against) && said.contains("nothing would change"), "{said}");
    Ok(())
}

#[test]
fn plan_with_a_drained_backend_is_empty() -> TestResult {
    let lab = Lab::start(2)?;
    let web = Cluster::start(&lab, 2)?;
    lab.proxymatic(&["backend", "drain", &web.replicas[0].address.to_string()])?.well()?;
    web.answers_come_from(&["b"])?;
    eventually_ok("the agent has published the drain", PATIENCE, || {
        let plan = plan(&lab)?;
        ensure!(plan["operations"] == json!([]), "{plan}");
        Ok(())
    })?;
    Ok(())
}

#[test]
fn plan_with_a_parked_backend_is_empty() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 3)?;
    let first = web.replicas[0].address;
    web.replicas[0].process.kill9()?;
    eject_for_an_hour(&lab, first)?;
    eventually_ok("the agent parks the backend", PATIENCE, || {
        let maps = Maps::open(&Pins::at(&lab.host(1).pins()))?;
        ensure!(!maps.is_drawn(backend_id(&maps, first)?), "the backend still has slots");
        Ok(())
    })?;
    // The slots change before the last write of the agent's plan.
    eventually_ok("the agent has published it", PATIENCE, || {
        let plan = plan(&lab)?;
        ensure!(plan["operations"] == json!([]), "{plan}");
        Ok(())
    })?;
    Ok(())
}

#[test]
fn plan_after_a_task_is_gone_equals_next_agent_writes() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 3)?;
    web.agent.kill9()?;
    web.sim.state(&web.tasks[1], "TASK_KILLED")?;

    let (before, plan) = (pinned(&lab)?, plan(&lab)?);
    assert_eq!(pinned(&lab)?, before);
    web.answers_come_from(&["a", "b", "c"])?;
    assert_eq!(backends(&plan), 2, "{plan}");
    let planned: Vec<_> = plan["operations"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert!(!planned.is_empty(), "{plan}");

    web.agent = lab.agent(&["--verbose"])?;
    lab.host(1).agent_ready(PATIENCE)?;
    web.when_active(&[0, 2])?;
    assert_eq!(written(&web.agent.stderr()?)[..planned.len()], planned, "{}", web.agent.stderr()?);
    assert_eq!(self::plan(&lab)?["operations"], json!([]));
    Ok(())
}

#[test]
fn plan_output_matches_golden() -> TestResult {
    let lab = Lab::start(2)?;
    let heavy = json!({ "labels": { "com.meltwater.proxymatic.port.0.weight": "heavy" } });
    // The slots would depend on which backend answers first.
    let mut web = Cluster::on(&lab, lab.sim()?, 2, heavy, &["--first-answer", "0"])?;
    web.when_active(&[0, 1])?;
    web.agent.kill9()?;
    web.sim.state(&web.tasks[1], "TASK_KILLED")?;
    let (pins, url) = (lab.host(1).pins().display().to_string(), lab.marathon_url());
    let arguments = ["plan", "show", "--marathon", &url];
    let known = [(pins.as_str(), "PINS")];
    Command::well(&arguments, &[], &["task"]).unwell().calling(&known).prints(&lab, &expect![[r#"
        SERVICE  PORT  POLICY  BACKEND  STATE  WEIGHT  ACTIVE  TOTAL
        /web  1234/tcp  leastconn  10.77.0.2:8001  active  500  0  0

        compared with what is pinned under PINS
        3 writes, in this order:
        put slots 2..3
        switch service 0 to 1 slots from 2
        demote backend 1 10.77.0.2:8002 gone weight 500
        warning  /web: label com.meltwater.proxymatic.port.0.weight=heavy: must be a number from 0 to
        1000; the default of 500 is used
    "#]], &expect![[r#"
        {
          "operations": [
            "put slots 2..3",
            "switch service 0 to 1 slots from 2",
            "demote backend 1 10.77.0.2:8002 gone weight 500"
          ],
          "services": [
            {
              "address": null,
              "backends": [
                {
                  "active": 0,
                  "address": "10.77.0.2",
                  "failed": 0,
                  "maxconn": 0,
                  "port": 8001,
                  "state": "active",
                  "task": "*",
                  "total": 0,
                  "weight": 500
                }
              ],
              "name": "/web",
              "policy": "leastconn",
              "port": 1234,
              "protocol": "tcp",
              "source": "marathon"
            }
          ],
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
fn plan_of_an_ordinary_user_is_against_empty_maps_with_a_note() -> TestResult {
    let lab = Lab::start(2)?;
    let _web = Cluster::start(&lab, 2)?;
    let json = as_nobody(&lab, &["-j", "plan", "show", "--marathon", &lab.marathon_url()])?.well()?.stdout;
    let plan: Value = serde_json::from_str(&json)?;
    let operations = plan["operations"].as_array().context("no operations")?;
    assert!(operations.iter().any(|it| it == "put frontend 1234/tcp class 1 service 0"), "{plan}");
    let said = as_nobody(&lab, &["plan", "--marathon", &lab.marathon_url()])?.well()?.stdout;
    assert!(said.contains("compared with empty tables, not with"), "{said}");
    assert!(said.contains("this user may not read it"), "{said}");
    Ok(())
}

fn plan(lab: &Lab) -> Result<Value> {
    let said = lab.proxymatic(&["-j", "plan", "show", "--marathon", &lab.marathon_url()])?.well()?.stdout;
    Ok(serde_json::from_str(&said)?)
}

/// The number of backends that the only service would have.
fn backends(plan: &Value) -> usize {
    plan["services"][0]["backends"].as_array().map_or(0, Vec::len)
}

/// Returns the content of the pinned maps, as the commands show it.
fn pinned(lab: &Lab) -> Result<(String, Value)> {
    let services = lab.proxymatic(&["-j", "service", "show"])?.well()?.stdout;
    Ok((services, lab.host(1).status()?["maps"].take()))
}

/// Returns the writes that a verbose agent has logged.
fn written(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains("DEBUG")).filter_map(|line| Some(line.split_once(": ")?.1)).collect()
}

/// Runs a command as an unprivileged user, from a folder that this user can read.
fn as_nobody(lab: &Lab, arguments: &[&str]) -> Result<Finished> {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    let program = folder.path().join("proxymatic");
    fs::copy(binary("proxymatic")?, &program)?;
    let (program, pins) = (program.display().to_string(), lab.host(1).pins().display().to_string());
    let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups", &program, "--bpffs", &pins];
    lab.host(1).run(Path::new("setpriv"), &[&nobody, arguments].concat(), PATIENCE)
}
