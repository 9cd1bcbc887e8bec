//! One host of the cluster: a namespace, a cgroup, a pin directory, and the programs that can be started there.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::kernel;
use super::rows::Service;
use crate::bpffs::BpfFs;
use crate::cgroup::Cgroup;
use crate::eventually::{PATIENCE, eventually_ok};
use crate::http::{self, Url};
use crate::net::{NetNs, address_on};
use crate::process::{Finished, Process, binary};
use crate::summary::Summary;

/// Timeout of a whole client run.
const CLIENT_PATIENCE: Duration = Duration::from_secs(300);

/// One host. Everything started on it runs in its namespace and in its cgroup.
#[derive(Debug)]
pub struct Host {
    number: u8,
    home: u8,
    address: Ipv4Addr,
    // Dropped first: it ends the processes that use the namespace.
    cgroup: Cgroup,
    net: NetNs,
    logs: PathBuf,
    bpffs: PathBuf,
}

/// A running replica of the small HTTP application.
#[derive(Debug)]
pub struct Replica {
    /// The address that the simulator listens on.
    pub address: SocketAddr,
    /// The process, for tests that kill it.
    pub process: Process,
}

/// Constant load from a client that runs until [`Load::finish`].
#[derive(Debug)]
pub struct Load {
    pub(super) process: Process,
}

impl Host {
    pub(super) fn create(number: u8, home: u8, name: &str, cgroup: &Cgroup, bpffs: &BpfFs) -> Result<Self> {
        Ok(Self {
            number,
            home,
            address: address_on(home, number),
            net: NetNs::create(&format!("{name}-host{number}"))?,
            cgroup: cgroup.child(&format!("host{number}"))?,
            logs: bpffs.run_dir().to_path_buf(),
            bpffs: bpffs.path(),
        })
    }

    /// Its address on the first network of the host.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its number, from 1.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.number
    }

    /// The first network of the host.
    #[must_use]
    pub fn home(&self) -> u8 {
        self.home
    }

    /// Its namespace.
    #[must_use]
    pub fn net(&self) -> &NetNs {
        &self.net
    }

    /// Its cgroup, which an agent on it attaches to.
    #[must_use]
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// The `--bpffs` of an agent on this host.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.bpffs.join(format!("host{}", self.number))
    }

    /// The `--socket` of an agent on this host.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.logs.join(format!("host{}.sock", self.number))
    }

    /// Starts a program in this namespace and this cgroup.
    pub fn spawn(&self, program: &Path, arguments: &[&str]) -> Result<Process> {
        self.spawn_in(&self.cgroup, program, arguments)
    }

    /// Starts a program in this namespace and another cgroup, as a container has.
    pub fn spawn_in(&self, cgroup: &Cgroup, program: &Path, arguments: &[&str]) -> Result<Process> {
        let mut command = self.net.command()?;
        // The self-test's connections would be among the counted ones; a test of it sets --self-test.
        command.env("SELF_TEST", "0");
        // The shell moves itself into the cgroup and then becomes the program, so the program never runs outside.
        command.args(["sh", "-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]);
        command.arg(cgroup.path()).arg(program).args(arguments);
        // No state file by default: hosts of one run have the addresses of those of another.
        command.env("STATE_FILE", "");
        let what = program.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        Process::spawn(&format!("host{}-{what}", self.number), command, &self.logs)
    }

    /// Runs a program in this namespace and this cgroup, and waits for its end.
    pub fn run(&self, program: &Path, arguments: &[&str], timeout: Duration) -> Result<Finished> {
        let mut process = self.spawn(program, arguments)?;
        process.close_stdin();
        process.finish(timeout)
    }

    /// Sends one HTTP request from this host.
    pub fn call(&self, method: &str, address: SocketAddr, path: &str, body: &str) -> Result<String> {
        self.net.enter(|| http::call(method, &Url::new(address, path), body))?
    }

    /// Starts a replica of the small HTTP application that answers with `name`.
    pub fn replica(&self, port: u16, name: &str) -> Result<Replica> {
        self.replica_at((self.address, port).into(), name, &[])
    }

    /// Starts a replica at any address of the host, with `more` arguments.
    pub fn replica_at(&self, address: SocketAddr, name: &str, more: &[&str]) -> Result<Replica> {
        let needed = ["--listen", &address.to_string(), "--name", name];
        let mut process = self.spawn(&binary("replica")?, &[&needed, more].concat())?;
        process.said("listening on", PATIENCE)?;
        Ok(Replica { address, process })
    }

    /// Starts the agent, which reads its services from `marathon`, with `more` arguments.
    pub fn agent(&self, marathon: &str, more: &[&str]) -> Result<Process> {
        self.agent_for(&self.cgroup, marathon, more)
    }

    /// Starts the agent for the programs of another cgroup.
    pub fn agent_for(&self, cgroup: &Cgroup, marathon: &str, more: &[&str]) -> Result<Process> {
        self.agent_of(cgroup, &[&["--marathon", marathon], more].concat())
    }

    /// Starts the agent for the programs of a cgroup, with the sources that the arguments name.
    pub fn agent_of(&self, cgroup: &Cgroup, more: &[&str]) -> Result<Process> {
        self.agent_program(&binary("proxymatic")?, cgroup, more)
    }

    /// Starts another program as the agent: another version, or a copy.
    pub fn agent_program(&self, program: &Path, cgroup: &Cgroup, more: &[&str]) -> Result<Process> {
        let (cgroup, pins, socket) = (cgroup.path().display(), self.pins(), self.socket());
        let (cgroup, pins, socket) = (cgroup.to_string(), pins.display().to_string(), socket.display().to_string());
        let needed = ["run", "--cgroup", &cgroup, "--bpffs", &pins, "--socket", &socket];
        self.spawn(program, &[&needed, kernel::loopback(more), more].concat())
    }

    /// Waits until the agent here reports that all sources are applied, and no new backend is awaited.
    pub fn agent_ready(&self, timeout: Duration) -> Result<()> {
        eventually_ok("the agent is ready", timeout, || {
            // Not `well()`: status exits with 1 for any problem, and a service without backends does not matter here.
            let said = self.proxymatic(&["-j", "status"])?.stdout;
            let status: serde_json::Value =
                serde_json::from_str(&said).with_context(|| format!("status printed {said:?}"))?;
            // Tasks that were started just before the agent are new.
            ensure!(status["agent"]["state"] == "OK" && status["agent"]["awaited"].is_null(), "{said}");
            Ok(())
        })
    }

    /// Runs a command against the agent and the pins of this host.
    pub fn proxymatic(&self, arguments: &[&str]) -> Result<Finished> {
        let (pins, socket) = (self.pins().display().to_string(), self.socket().display().to_string());
        let here = ["--bpffs", &pins, "--socket", &socket];
        self.run(&binary("proxymatic")?, &[&here, arguments].concat(), PATIENCE)
    }

    /// Returns the rows of `proxymatic -j service show` here.
    pub fn services(&self) -> Result<Vec<Service>> {
        let said = self.proxymatic(&["-j", "service", "show"])?.well()?.stdout;
        serde_json::from_str(&said).with_context(|| format!("`-j service show` printed {said:?}"))
    }

    /// Returns the row of one service.
    pub fn service(&self, name: &str) -> Result<Service> {
        let service = self.services()?.into_iter().find(|service| service.name == name);
        service.with_context(|| format!("no service {name}"))
    }

    /// Waits until a condition on a service holds, and returns the service.
    pub fn service_when(&self, what: &str, name: &str, wanted: impl Fn(&Service) -> bool) -> Result<Service> {
        eventually_ok(what, PATIENCE, || {
            let service = self.service(name)?;
            ensure!(wanted(&service), "{service:?}");
            Ok(service)
        })
    }

    /// Runs the client with these arguments and returns its summary, failed requests included.
    pub fn client(&self, arguments: &[&str]) -> Result<Summary> {
        summary(&self.run(&binary("client")?, arguments, CLIENT_PATIENCE)?)
    }

    /// Starts constant load on a URL until [`Load::finish`]; returns after the first requests.
    pub fn load(&self, url: &str, more: &[&str]) -> Result<Load> {
        let needed = ["load", "--url", url, "--until-stdin-closes", "--report-every", "50"];
        let load = Load { process: self.spawn(&binary("client")?, &[&needed, more].concat())? };
        load.reaches(1)?;
        Ok(load)
    }

    /// Sends datagrams to a UDP service without pause until [`Load::finish`]: see `udp-load` for `more`.
    pub fn udp_load(&self, to: SocketAddr, more: &[&str]) -> Result<Load> {
        let load = Load { process: self.spawn(&binary("udp-load")?, &[&["--to", &to.to_string()], more].concat())? };
        load.reaches(1)?;
        Ok(load)
    }
}

impl Replica {
    /// Sends SIGTERM and waits until the replica has finished its open requests.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.process.terminate(PATIENCE)
    }
}

impl Load {
    /// Returns the latest summary.
    pub fn so_far(&self) -> Result<Summary> {
        let said = self.process.stdout()?;
        let whole = said.rsplit_once('\n').map_or("", |(lines, _)| lines);
        let last = whole.lines().next_back().context("no report yet")?;
        serde_json::from_str(last).with_context(|| format!("client printed {last:?}"))
    }

    /// Waits until this many more requests are done, failed ones included, as long as there is progress.
    pub fn reaches(&self, more: u64) -> Result<Summary> {
        let done = |seen: &Summary| seen.ok + seen.failed;
        let mut so_far = self.so_far().map_or(0, |seen| done(&seen));
        let goal = so_far + more;
        loop {
            let seen = eventually_ok(&format!("{goal} requests under load"), PATIENCE, || {
                let seen = self.so_far()?;
                ensure!(done(&seen) > so_far || goal == so_far, "{so_far} so far");
                Ok(seen)
            })?;
            so_far = done(&seen);
            if so_far >= goal {
                return Ok(seen);
            }
        }
    }

    /// Ends the load and returns its summary.
    pub fn finish(mut self) -> Result<Summary> {
        self.process.close_stdin();
        // A request that is under way may take as long as a step.
        summary(&self.process.finish(3 * PATIENCE)?)
    }
}

/// Parses the client's last line. Its exit status only repeats whether a request failed.
fn summary(client: &Finished) -> Result<Summary> {
    let said = || format!("client: {}\n{}{}", client.status, client.stdout, client.stderr);
    let last = client.stdout.lines().next_back().with_context(said)?;
    serde_json::from_str(last).with_context(said)
}
