//! The agent in a container with a cgroup namespace of its own, in which its own cgroup looks like the root. A cgroup
//! of the test stands for the host's root; nothing is attached to the machine's root.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::cgroup::Cgroup;
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, Replica, Sim, binary};
use proxymatic_tests::process::Process;

use crate::bpftool;
use crate::fixtures::cluster::{APP, SERVICE};

/// What a container runtime does to cgroups: it makes a namespace, mounts the container's own tree, and mounts the
/// host's tree if requested.
const CONTAINER: &str = "mkdir -p $0/own $0/host && mount -t cgroup2 none $0/own && mount --bind $1 $0/host && shift \
                         && exec \"$@\"";

struct Contained<'lab> {
    lab: &'lab Lab,
    /// The container's own cgroup.
    cgroup: Cgroup,
    _replica: Replica,
    _sim: Sim<'lab>,
}

#[test]
fn agent_in_own_cgroupns_serves_the_given_host_cgroup() -> TestResult {
    let lab = Lab::start(2)?;
    let it = Contained::start(&lab)?;
    let _agent = it.agent("host")?;
    lab.host(1).agent_ready(PATIENCE)?;
    // Programs outside and inside the container.
    for cgroup in [lab.host(1).cgroup(), &it.cgroup] {
        assert_eq!(lab.host(1).tcp_client_in(cgroup)?.tell(&format!("connect c {SERVICE}"))?, "ok");
    }
    assert_eq!(bpftool::attached(lab.host(1).cgroup().path())?.len(), 12);
    assert_eq!(bpftool::attached(it.cgroup.path())?, Vec::<String>::new());
    lab.proxymatic(&["hook", "show"])?.well()?;
    Ok(())
}

#[test]
fn agent_in_own_cgroupns_reports_its_apparent_root() -> TestResult {
    let lab = Lab::start(2)?;
    let it = Contained::start(&lab)?;
    let agent = it.agent("own")?;
    lab.host(1).agent_ready(PATIENCE)?;
    let said = agent.stderr()?;
    assert!(said.contains("is not the host's root but this container's own cgroup"), "{said}");
    // By the kernel's own list, nothing outside is served.
    let connect = |cgroup| lab.host(1).tcp_client_in(cgroup)?.tell(&format!("connect c {SERVICE}"));
    assert_eq!((connect(lab.host(1).cgroup())?.as_str(), connect(&it.cgroup)?.as_str()), ("ECONNREFUSED", "ok"));
    Ok(())
}

#[test]
fn agent_on_the_host_takes_no_cgroup_for_a_containers() -> TestResult {
    let lab = Lab::start(1)?;
    let _sim = lab.sim()?;
    let agent = lab.agent(&[])?;
    lab.host(1).agent_ready(PATIENCE)?;
    let said = agent.stderr()?;
    assert!(!said.contains("own cgroup"), "{said}");
    Ok(())
}

impl<'lab> Contained<'lab> {
    fn start(lab: &'lab Lab) -> Result<Self> {
        let (replica, sim) = (lab.replica(2, 8001, "a")?, lab.sim()?);
        sim.app(APP, SERVICE.port(), &[(2, 8001)])?;
        Ok(Self { lab, cgroup: lab.host(1).cgroup().child("container")?, _replica: replica, _sim: sim })
    }

    /// Starts the agent in the container, for the programs of cgroup `own` or of cgroup `host`.
    fn agent(&self, whose: &str) -> Result<Process> {
        let host = self.lab.host(1);
        let room = self.lab.run_dir().join("container");
        fs::create_dir(&room)?;
        let whose = room.join(whose);
        let (program, pins, socket, marathon) =
            (binary("proxymatic")?, host.pins(), host.socket(), self.lab.marathon_url());
        let container = ["--cgroup", "--mount", "sh", "-c", CONTAINER, text(&room)?, text(host.cgroup().path())?];
        let agent = [text(&program)?, "run", "--cgroup", text(&whose)?, "--bpffs", text(&pins)?];
        let more = ["--socket", text(&socket)?, "--marathon", &marathon];
        let process = host.spawn_in(&self.cgroup, Path::new("unshare"), &[&container[..], &agent, &more].concat())?;
        // Asserts first that the agent is in a namespace of its own.
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/cgroup"));
        let pid = process.pid()?.to_string();
        eventually_ok("the container has a cgroup namespace of its own", PATIENCE, || {
            ensure!(namespace(&pid)? != namespace("self")?, "{}", process.log());
            Ok(())
        })?;
        Ok(process)
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}
