//! The local cluster of docker-compose.yml, as tests/compose/sim.yml changes it to run without a network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, Service};
use serde_json::Value;

use super::daemon::{Docker, said};

/// Timeout of building the images and starting the cluster, and of its end.
const START: Duration = Duration::from_secs(180);
const WEB: &str = "http://localhost:1234/";

/// A running local cluster, with the variables that the test sets for docker-compose.
struct Cluster<'lab> {
    docker: Docker<'lab>,
    here: PathBuf,
}

#[test]
fn local_cluster_serves_its_apps_and_leaves_nothing_behind() -> TestResult {
    let lab = Lab::start(1)?;
    let cluster = Cluster::new(&lab)?;
    let before = cluster.found()?;
    cluster.compose(&["up", "--build", "--detach"])?;
    cluster.apps_are_submitted()?;
    cluster.compose(&["up", "--detach", "apps"])?;

    // Three replicas, in turn.
    cluster.apps_are_served()?;
    let turn = |_| cluster.on_host("curl", &["--silent", "--show-error", WEB]);
    let turns = (0..6).map(turn).collect::<Result<Vec<_>>>()?;
    let mut names = turns[..3].to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!((names.len(), &turns[..3]), (3, &turns[3..]), "{turns:?}");
    // By their own names, which are those of tasks.
    assert!(names.iter().all(|name| name.starts_with("demo_web.instance-")), "{names:?}");
    for protocol in ["tcp/127.0.0.1/1235", "udp/127.0.0.1/1236"] {
        let ask = format!("exec 3<>/dev/{protocol} && echo hello >&3 && timeout 30 head -n1 <&3");
        let answer = cluster.on_host("bash", &["-c", &ask])?;
        assert!(answer.starts_with("demo_") && answer.ends_with(": hello\n"), "{protocol}: {answer}");
    }
    // A container on the bridge is a client too.
    let mut inside = cluster.docker.run("client", &[])?;
    let answer = inside.tell("try udp 172.17.0.1:1236")?;
    assert!(answer.starts_with("demo_datagrams."), "{answer}");

    let load = lab.load(WEB, &["--threads", "2"])?;
    let killed = names[0].trim();
    cluster.marathon("DELETE", &format!("/v2/apps/demo/web/tasks/{killed}"))?;
    eventually_ok("another replica takes its place", START, || {
        let app = cluster.marathon("GET", "/v2/apps/demo/web")?;
        ensure!(app["app"]["tasksHealthy"] == 3 && !app.to_string().contains(killed), "{app}");
        Ok(())
    })?;
    // The gateway is restarted, and its pins stay.
    cluster.compose(&["restart", "gateway"])?;
    cluster.is_well()?;
    let after = load.so_far()?.ok;
    load.reaches(after + 100)?;
    let seen = load.finish()?;
    assert_eq!(seen.failed, 0, "{seen:?}");

    cluster.compose(&["down", "--volumes"])?;
    drop(inside);
    eventually_ok("nothing is left", START, || {
        let left = cluster.found()?;
        ensure!(left == before, "{left:#?}, which was {before:#?}");
        Ok(())
    })?;
    Ok(())
}

/// Returns everything that Docker and the agent have left.
#[derive(Debug, PartialEq)]
struct Found {
    containers: String,
    networks: String,
    volumes: String,
    pins: Vec<String>,
    hooks: String,
    cgroups: Vec<PathBuf>,
}

impl<'lab> Cluster<'lab> {
    fn new(lab: &'lab Lab) -> Result<Self> {
        let docker = Docker::start(lab)?;
        let here = lab.run_dir().join("here.yml");
        let socket = docker.socket().display();
        // Its cgroup and its Docker are the lab's; by default they are the machine's.
        let more = format!(
            "services:\n  gateway:\n    environment: {{CGROUP: /host/cgroup}}\n  marathon:\n    volumes: [\"{socket}:/var/run/docker.sock\"]\n"
        );
        fs::write(&here, more)?;
        Ok(Self { docker, here })
    }

    fn compose(&self, arguments: &[&str]) -> Result<String> {
        let mut compose = self.docker.compose();
        compose.args(["--file", "tests/compose/sim.yml", "--file"]).arg(&self.here);
        compose.args(["--project-name", "local"]).args(arguments);
        said(&mut compose)
    }

    fn apps_are_submitted(&self) -> Result<()> {
        eventually_ok("the apps run", START, || {
            let state =
                self.docker.command(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "local_apps_1"])?;
            ensure!(state.trim() == "exited 0", "{state}");
            Ok(())
        })
        .with_context(|| self.compose(&["logs", "--no-color"]).unwrap_or_default())?;
        self.is_well()
    }

    /// Waits until every task gets connections: the gateway hears of its health a little later than `apps`.
    fn apps_are_served(&self) -> Result<()> {
        eventually_ok("every task gets connections", START, || {
            let said = self.compose(&["exec", "-T", "gateway", "proxymatic", "-j", "service", "show"])?;
            let rows: Vec<Service> = serde_json::from_str(&said).with_context(|| said.clone())?;
            let mut active: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.active().count())).collect();
            active.sort_unstable();
            ensure!(active == [("/demo/datagrams", 2), ("/demo/lines", 2), ("/demo/web", 3)], "{said}");
            Ok(())
        })
    }

    fn is_well(&self) -> Result<()> {
        eventually_ok("the gateway finds all well", START, || {
            self.compose(&["exec", "-T", "gateway", "proxymatic", "status"]).map(drop)
        })
    }

    /// Returns Marathon's answer to a client outside of the lab's cgroup.
    fn marathon(&self, method: &str, path: &str) -> Result<Value> {
        let answer = self.docker.lab.host(1).call(method, ([127, 0, 0, 1], 8080).into(), path, "")?;
        Ok(serde_json::from_str(&answer)?)
    }

    fn on_host(&self, program: &str, arguments: &[&str]) -> Result<String> {
        Ok(self.docker.lab.host(1).run(Path::new(program), arguments, PATIENCE)?.well()?.stdout)
    }

    fn found(&self) -> Result<Found> {
        let docker = |arguments: &[&str]| self.docker.command(arguments);
        let cgroup = self.docker.lab.host(1).cgroup().path();
        let below = fs::read_dir(cgroup.join("docker")).into_iter().flatten();
        Ok(Found {
            containers: docker(&["ps", "--all", "--format", "{{.Names}}"])?,
            networks: docker(&["network", "ls", "--format", "{{.Name}}"])?,
            volumes: docker(&["volume", "ls", "--quiet"])?,
            pins: self.docker.mounted("bpf")?,
            hooks: said(Command::new("bpftool").args(["cgroup", "show"]).arg(cgroup))?,
            cgroups: below.filter_map(|it| Some(it.ok()?.path())).filter(|it| it.is_dir()).collect(),
        })
    }
}
