//! A small cluster on this machine: hosts as namespaces and cgroups, a bpf filesystem, and the programs on them.
//!
//! Host 1 has the simulated Marathon, the agent under test and its clients unless a test chooses otherwise.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use proxymatic_tests::lab::Lab;
//!
//! let lab = Lab::start(2)?;
//! let sim = lab.sim()?;
//! let web = lab.replica(2, 8001, "b")?;
//! sim.app("/web", 1234, &[(2, 8001)])?;
//! let mut agent = lab.agent(&[])?;
//! lab.service_when("b gets connections", "/web", |web| web.active().count() == 1)?;
//! let load = lab.load("http://localhost:1234/", &[])?;
//! agent.kill9()?;
//! load.reaches(1000)?;
//! assert_eq!(load.finish()?.failed, 0);
//! # Ok(())
//! # }
//! ```

mod builds;
mod echo;
mod events;
mod host;
pub mod kernel;
mod networks;
mod rows;
mod sim;
mod socket_program;
mod status;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

pub use self::echo::Echo;
pub use self::events::Watcher;
pub use self::host::{Host, Load, Replica};
pub use self::networks::{Arms, CLIENT, FAR, ROUTER};
pub use self::rows::{Backend, Service};
pub use self::sim::Sim;
pub use self::socket_program::SocketProgram;
use crate::bpffs::BpfFs;
use crate::cgroup::Cgroup;
pub use crate::eventually::PATIENCE;
use crate::net::{Network, Switch};
pub use crate::process::binary;
use crate::process::{Finished, Process};
use crate::summary::Summary;
use crate::{cleanup, leftovers};

/// The address of the simulated Marathon on its host.
const MARATHON_PORT: u16 = 8080;

/// The cluster. Declare it before what runs in it, since variables drop in reverse order.
#[derive(Debug)]
pub struct Lab {
    hosts: Vec<Host>,
    networks: Vec<Network>,
    switch: Switch,
    _cgroup: Cgroup,
    bpffs: BpfFs,
}

impl Lab {
    /// Makes this many hosts on one switch, 10.77.0.1 and up. Needs root. First removes the remains of killed runs.
    ///
    /// Other tests have labs at the same time, in processes of their own; a test whose name begins with `measured_`
    /// runs alone.
    pub fn start(hosts: u8) -> Result<Self> {
        Self::joined(vec![Network::Switch((1..=hosts).collect())])
    }

    /// Makes the hosts of these networks. A host's own address is that on the first network that has it.
    pub fn joined(networks: Vec<Network>) -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "needs root: it makes network namespaces, cgroups and a bpf mount");
        cleanup::on_signals()?;
        leftovers::sweep();
        let name = cleanup::unique_name();
        let bpffs = BpfFs::mount(&name)?;
        let cgroup = Cgroup::create(&name)?;
        let switch = Switch::create(&format!("{name}-switch"))?;
        let count = networks.iter().flat_map(Network::hosts).copied().max().unwrap_or(0);
        let home = |number: u8| networks.iter().position(|network| network.hosts().contains(&number));
        let host = |number| {
            let home = home(number).with_context(|| format!("host {number} is on no network"))?;
            Host::create(number, u8::try_from(home)?, &name, &cgroup, &bpffs)
        };
        let hosts = (1..=count).map(host).collect::<Result<_>>()?;
        let lab = Self { hosts, networks, switch, _cgroup: cgroup, bpffs };
        lab.lay()?;
        Ok(lab)
    }

    /// Returns a host by its number, from 1.
    ///
    /// # Panics
    /// If there is no such host.
    #[must_use]
    pub fn host(&self, number: u8) -> &Host {
        self.hosts.get(usize::from(number).wrapping_sub(1)).unwrap_or_else(|| panic!("the lab has no host {number}"))
    }

    /// The bpf filesystem that all hosts of the lab share, each with a directory of its own.
    #[must_use]
    pub fn bpffs(&self) -> PathBuf {
        self.bpffs.path()
    }

    /// The folder of logs and sockets.
    #[must_use]
    pub fn run_dir(&self) -> &Path {
        self.bpffs.run_dir()
    }

    /// Starts the simulated Marathon on host 1.
    pub fn sim(&self) -> Result<Sim<'_>> {
        self.sim_with(&[])
    }

    /// Starts the simulated Marathon on host 1 with these arguments.
    pub fn sim_with(&self, more: &[&str]) -> Result<Sim<'_>> {
        Sim::start(self.host(1), MARATHON_PORT, more)
    }

    /// The URL of [`Lab::sim`], as `--marathon` takes it.
    #[must_use]
    pub fn marathon_url(&self) -> String {
        format!("http://{}:{MARATHON_PORT}", self.host(1).address())
    }

    /// Starts a replica of the small HTTP application that answers with `name`.
    pub fn replica(&self, host: u8, port: u16, name: &str) -> Result<Replica> {
        self.host(host).replica(port, name)
    }

    /// Starts the agent on host 1 with these arguments in addition to those of every agent.
    pub fn agent(&self, more: &[&str]) -> Result<Process> {
        self.agent_on(1, more)
    }

    /// Starts the agent on any host.
    pub fn agent_on(&self, host: u8, more: &[&str]) -> Result<Process> {
        self.host(host).agent(&self.marathon_url(), more)
    }

    /// Runs the client on host 1 and returns its summary.
    pub fn client(&self, arguments: &[&str]) -> Result<Summary> {
        self.host(1).client(arguments)
    }

    /// Starts constant load on a URL from host 1, until [`Load::finish`].
    pub fn load(&self, url: &str, more: &[&str]) -> Result<Load> {
        self.host(1).load(url, more)
    }

    /// Runs a command on host 1.
    pub fn proxymatic(&self, arguments: &[&str]) -> Result<Finished> {
        self.host(1).proxymatic(arguments)
    }

    /// Waits until a condition on a service of host 1 holds, and returns the service.
    pub fn service_when(&self, what: &str, name: &str, wanted: impl Fn(&Service) -> bool) -> Result<Service> {
        self.host(1).service_when(what, name, wanted)
    }
}
