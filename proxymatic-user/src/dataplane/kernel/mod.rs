//! The data plane in the kernel: programs, links and maps, all pinned, so that they outlive the agent.

mod adopt;
mod apply;
mod bpf;
mod hooks;
mod host;
mod maps;
mod object;
mod pins;
mod shared;

pub use hooks::{HOOKS, HookRow, measure, rows as hook_rows};
pub use host::{cgroup_root, netns_cookie};
pub use maps::Maps;
pub use pins::{Lock, Pins};

use std::path::PathBuf;

use proxymatic_common::{ABI_VERSION, Config, Loopback};

use super::{Dataplane, Error, Said};
use crate::plan::{Capacity, MapOp, Tables};

/// What to attach, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder of the pins, on a bpffs.
    pub bpffs: PathBuf,
    /// The cgroup whose sockets are served; found by itself where `None`.
    pub cgroup: Option<PathBuf>,
    /// From which namespaces loopback addresses lead to services.
    pub loopback: Loopback,
    /// How many entries new maps get. Maps that are pinned already keep theirs.
    pub capacity: Capacity,
}

/// The data plane in the kernel, with the lock that says it is ours.
#[derive(Debug)]
pub struct Kernel {
    maps: Maps,
    config: Config,
    _lock: Lock,
}

impl Kernel {
    /// Checks the host, takes the lock, loads the programs, adopts or makes the maps and puts the hooks in place.
    ///
    /// Whatever was pinned goes on serving until the moment it is replaced, and stays where something fails.
    ///
    /// # Errors
    /// Something is missing on this host, another agent is at it, or the kernel refuses; nothing new is left attached.
    pub fn start(settings: &Settings) -> Result<Self, Error> {
        host::check(&settings.bpffs)?;
        let cgroup = match &settings.cgroup {
            Some(path) => path.clone(),
            None => cgroup_root()?,
        };
        let cgroup = host::open_cgroup(&cgroup)?;
        let host_netns = match settings.loopback {
            Loopback::HOST => netns_cookie()?,
            _ => 0,
        };
        let pins = Pins::make(&settings.bpffs)?;
        let lock = pins.lock()?;
        let mut object = object::load(&pins, settings.capacity)?;
        let maps = Maps::open(&pins)?;
        let before = maps.config();
        let config = Config {
            abi: ABI_VERSION,
            loopback: settings.loopback,
            host_netns,
            cgroup: host::cgroup_id(&cgroup)?,
            heartbeat: host::monotonic(),
            pid: std::process::id(),
            agent: proxymatic_common::AgentState::INITIALIZING,
            ..before
        };
        // Before the hooks: they read it from their first run on.
        maps.set_config(config);
        let moved = before.cgroup != 0 && before.cgroup != config.cgroup;
        hooks::put(&mut object, &pins, &cgroup, moved)?;
        Ok(Self { maps, config, _lock: lock })
    }
}

impl Dataplane for Kernel {
    fn tables(&self) -> Result<Tables, Error> {
        self.maps.tables()
    }

    fn apply(&mut self, op: &MapOp) -> Result<(), Error> {
        self.maps.apply(op)
    }

    fn active(&self, backend: u32) -> u64 {
        self.maps.load(backend).map_or(0, |load| load.active())
    }

    fn announce(&mut self, said: Said) {
        let now = host::monotonic();
        self.config.heartbeat = now;
        self.config.agent = said.agent;
        if said.synced {
            self.config.synced = now;
        }
        self.maps.set_config(self.config);
    }
}
