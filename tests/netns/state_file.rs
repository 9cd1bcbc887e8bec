//! The state file: a host that boots without Marathon forwards what it last knew. Instead of a boot, the test kills the
//! agent and removes all pins: the maps are then empty, as after a boot.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, binary};
use proxymatic_tests::process::Process;
use serde_json::{Value, json};

use crate::fixtures::cluster::{APP, Cluster, PORT, SERVICE, place};

#[test]
fn services_answer_after_a_boot_until_marathon_corrects_them() -> TestResult {
    let lab = Lab::start(2)?;
    let begun = Instant::now();
    let file = lab.run_dir().join("state.json");
    let state = ["--state-file", text(&file)?];
    let mut web = Cluster::on(&lab, lab.sim()?, 2, json!({}), &state)?;
    web.when_active(&[0, 1])?;
    when_kept(&file, &web.tasks)?;
    reboot(&lab, &mut web.agent)?;
    web.sim.process.kill9()?;

    web.agent = lab.agent(&state)?;
    let mut client = lab.host(1).tcp_client()?;
    eventually_ok("the service answers", PATIENCE, || {
        ensure!(client.tell(&format!("connect c {SERVICE}"))? == "ok", "refused");
        Ok(())
    })?;
    assert_eq!(client.tell("close c")?, "ok");
    web.answers_come_from(&["a", "b"])?;
    // The agent waited for one attempt at most.
    let log = web.agent.stderr()?;
    let (before, _) = log.split_once("marathon does not answer, and").with_context(|| log.clone())?;
    assert!(before.matches("the last state stays").count() <= 1, "{log}");
    let status = lab.host(1).trouble("refused the connection")?;
    let restored = &status["agent"]["sources"][0]["restored"];
    assert_eq!(restored["path"], text(&file)?, "{status}");
    // The file has milliseconds, and Marathon was read well after the beginning.
    assert!(restored["age_s"].as_f64().is_some_and(|age| age < begun.elapsed().as_secs_f64()), "{status}");
    // Whatever the line breaks of the file.
    let said = lab.proxymatic(&["status"])?.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    let words =
        format!("marathon has not answered since the agent started: its services come from {}, of ", file.display());
    assert!(said.contains(&words), "{said}");
    assert!(said.contains(&format!("marathon: restored from {}, of ", file.display())), "{said}");

    // Marathon comes back with the same app and one task less.
    let apps = lab.run_dir().join("apps.json");
    let app = json!({ "id": APP, "servicePort": PORT, "tasks": [place(web.replicas[1].address)] });
    fs::write(&apps, json!([app]).to_string())?;
    let listen = format!("{}:8080", lab.host(1).address());
    let _marathon = lab.host(1).spawn(&binary("marathon-sim")?, &["--listen", &listen, "--apps", text(&apps)?])?;
    web.when_active(&[1])?;
    lab.host(1).agent_ready(PATIENCE)?;
    web.answers_come_from(&["b"])?;
    eventually_ok("all is well", PATIENCE, || lab.host(1).well())?;
    Ok(())
}

#[test]
fn change_just_before_a_shutdown_is_in_the_state_file() -> TestResult {
    let lab = Lab::start(2)?;
    let file = lab.run_dir().join("state.json");
    let state = ["--state-file", text(&file)?];
    let mut web = Cluster::on(&lab, lab.sim()?, 1, json!({}), &state)?;
    when_kept(&file, &web.tasks)?;
    web.scale()?;
    web.when_active(&[0, 1])?;
    // SIGTERM, as at a shutdown of the machine.
    assert!(web.agent.terminate(PATIENCE)?.success());
    let kept = fs::read_to_string(&file)?;
    assert!(web.tasks.iter().all(|task| kept.contains(task)), "{kept}");
    lab.proxymatic(&["detach"])?.well()?;
    web.sim.process.kill9()?;
    web.agent = lab.agent(&state)?;
    web.when_active(&[0, 1])?;
    web.answers_come_from(&["a", "b"])?;
    Ok(())
}

#[test]
fn damaged_state_file_is_set_aside_and_marathon_is_served() -> TestResult {
    let lab = Lab::start(2)?;
    let file = lab.run_dir().join("state.json");
    let state = ["--state-file", text(&file)?];
    let mut web = Cluster::on(&lab, lab.sim()?, 2, json!({}), &state)?;
    when_kept(&file, &web.tasks)?;
    reboot(&lab, &mut web.agent)?;
    let kept = fs::read(&file)?;
    fs::write(&file, &kept[..kept.len() - 100])?;

    web.agent = lab.agent(&state)?;
    lab.host(1).agent_ready(PATIENCE)?;
    web.answers_come_from(&["a", "b"])?;
    let said = web.agent.stderr()?;
    let start = format!("--state-file {} is not used: it has ", file.display());
    assert!(said.contains(&start) && said.contains("it was renamed to "), "{said}");
    let aside = said.split_once("it was renamed to ").and_then(|(_, rest)| rest.split_once(", and"));
    let aside = aside.context("no name")?.0;
    assert_eq!(fs::read(aside)?.len(), kept.len() - 100);
    // The warning ends with the first good write.
    when_kept(&file, &web.tasks)?;
    eventually_ok("all is well again", PATIENCE, || lab.host(1).well())?;
    Ok(())
}

#[test]
fn state_file_on_a_full_disk_warns_and_harms_nothing_else() -> TestResult {
    let lab = Lab::start(2)?;
    let (host, sim) = (lab.host(1), lab.sim()?);
    let folder = lab.run_dir().join("small");
    fs::create_dir(&folder)?;
    let _replica = lab.replica(2, 8001, "a")?;
    sim.app(APP, PORT, &[(2, 8001)])?;
    // A file system in a mount namespace of the agent, which ends with it.
    let full = "mount -t tmpfs -o size=16k small \"$0\" && cat /dev/zero >\"$0/filler\" 2>/dev/null; exec \"$@\"";
    let paths = [host.cgroup().path(), &host.pins(), &host.socket(), &folder.join("state.json")];
    let [cgroup, pins, socket, file] = paths.map(|path| path.display().to_string());
    let (program, marathon) = (binary("proxymatic")?.display().to_string(), lab.marathon_url());
    let agent = [&program, "run", "--cgroup", &cgroup, "--bpffs", &pins, "--socket", &socket];
    let more = ["--state-file", &file, "--marathon", &marathon];
    let arguments = [&["--mount", "sh", "-c", full, text(&folder)?][..], &agent, &more].concat();
    let mut agent = host.spawn(Path::new("unshare"), &arguments)?;

    host.agent_ready(PATIENCE)?;
    let wanted = format!("--state-file {file} cannot be written: No space left on device");
    eventually_ok("it is warned of", PATIENCE, || warning(&lab, &wanted))?;
    let _second = lab.replica(2, 8002, "b")?;
    sim.task(APP, 2, 8002)?;
    host.service_when("both get connections", APP, |web| web.active().count() == 2)?;
    assert!(agent.stderr()?.contains(&wanted));

    // The disk has space again: a terminating agent writes once more.
    let seen = PathBuf::from(format!("/proc/{}/root{}", agent.pid()?, folder.display()));
    assert!(!seen.join("state.json").exists());
    fs::remove_file(seen.join("filler"))?;
    let kept = fs::File::open(&seen)?;
    assert!(agent.terminate(PATIENCE)?.success());
    let here = format!("/proc/self/fd/{}/state.json", std::os::fd::AsRawFd::as_raw_fd(&kept));
    assert!(fs::read_to_string(here)?.contains("\"/web\""));
    Ok(())
}

#[test]
fn state_file_in_a_missing_folder_warns_with_its_flag() -> TestResult {
    let lab = Lab::start(2)?;
    let plain = lab.run_dir().join("plain");
    fs::write(&plain, "no folder")?;
    for (path, reason) in
        [(lab.run_dir().join("none/further/state.json"), "No such file"), (plain.join("state.json"), "Not a directory")]
    {
        let mut web = Cluster::on(&lab, lab.sim()?, 1, json!({}), &["--state-file", text(&path)?])?;
        web.answers_come_from(&["a"])?;
        let wanted = format!("--state-file {} cannot be ", path.display());
        eventually_ok("it is warned of", PATIENCE, || warning(&lab, &wanted))?;
        let said = web.agent.stderr()?;
        assert!(said.contains(&wanted) && said.contains(reason), "{said}");
        assert!(web.agent.terminate(PATIENCE)?.success());
    }
    Ok(())
}

/// Ends the agent and empties the maps, as a boot does.
fn reboot(lab: &Lab, agent: &mut Process) -> Result<()> {
    agent.kill9()?;
    lab.proxymatic(&["detach"])?.well()?;
    let refused = lab.host(1).tcp_client()?.tell(&format!("connect c {SERVICE}"))?;
    ensure!(refused == "ECONNREFUSED", "after a boot nothing is forwarded: {refused}");
    Ok(())
}

/// Waits until the file lists these tasks.
fn when_kept(file: &Path, tasks: &[String]) -> Result<()> {
    eventually_ok("the file has the tasks", PATIENCE, || {
        let kept = fs::read_to_string(file)?;
        ensure!(tasks.iter().all(|task| kept.contains(task)), "{kept}");
        Ok(())
    })
}

/// Returns the status if it has a warning that begins like this.
fn warning(lab: &Lab, start: &str) -> Result<Value> {
    let status = lab.host(1).status()?;
    let warnings = status["warnings"].as_array().into_iter().flatten();
    let found = warnings.filter_map(|it| it["reason"].as_str()).any(|reason| reason.starts_with(start));
    ensure!(found, "{start:?} in {status}");
    Ok(status)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}
