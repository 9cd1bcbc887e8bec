//! The data plane in the kernel: programs, links and maps, all pinned, so that they outlive the agent.

mod adopt;
mod apply;
mod bpf;
mod events;
mod hooks;
mod host;
mod maps;
mod object;
mod pins;
mod shared;
mod value;

pub use events::Events;
pub use hooks::{HOOKS, HookRow, measure, rows as hook_rows};
pub use host::{age, cgroup_root, find_cgroup, netns_cookie};
pub use maps::Maps;
pub use pins::{Lock, Pins};
pub use value::from_bytes;

use std::{path::PathBuf, time::Duration};

use proxymatic_common::{ABI_VERSION, Cell64, Config, Looks, Loopback};

use super::{Counts, Dataplane, Error, Hearing, Reach, Said};
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
    /// What the hooks are to look at.
    pub looks: Looks,
    /// Sockets with this SO_MARK are left alone; 0 for none.
    pub bypass_mark: u32,
    /// One of so many connections is told as it happens; 0 for none.
    pub sample: u32,
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
            // Good to know, but nothing that was asked for depends on it.
            _ => netns_cookie().unwrap_or(0),
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
            agent_tgid: host::initial_pid(),
            bypass_mark: settings.bypass_mark,
            looks: settings.looks,
            sample: settings.sample,
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

    fn cgroup(&self, path: &str) -> Option<u64> {
        find_cgroup(&cgroup_root().ok()?, path)
    }

    fn active(&self, backend: u32) -> u64 {
        self.maps.load(backend).map_or(0, |load| load.active())
    }

    fn counts(&self, backend: u32) -> Counts {
        let Some(load) = self.maps.load(backend) else { return Counts::default() };
        let ejected = load.ejected_until.get().saturating_sub(host::monotonic());
        Counts { opened: load.opened.get(), closed: load.closed.get(), ejected: Duration::from_nanos(ejected) }
    }

    fn service_counts(&self, service: u32) -> Counts {
        let Some(load) = self.maps.service_load(service) else { return Counts::default() };
        Counts { opened: load.opened.get(), closed: load.closed.get(), ejected: Duration::ZERO }
    }

    fn eject(&mut self, backend: u32, time: Duration) {
        if let Some(load) = self.maps.load(backend) {
            load.ejected_until.set(host::monotonic() + time.as_nanos() as u64);
        }
    }

    fn readmit(&mut self, backend: u32) {
        if let Some(load) = self.maps.load(backend) {
            load.consecutive.set(0);
            load.ejected_until.set(0);
        }
    }

    fn correct(&mut self, backend: u32, by: i64) {
        if let Some(load) = self.maps.load(backend) {
            correct(&load.opened, &load.closed, by);
        }
    }

    fn correct_service(&mut self, service: u32, by: i64) {
        if let Some(load) = self.maps.service_load(service) {
            correct(&load.opened, &load.closed, by);
        }
    }

    fn reach(&self) -> Option<Reach> {
        // As the hooks take it: where the host's namespace is not known, each is taken for it.
        let host = self.config.host_netns != 0 && self.config.loopback != Loopback::ALL;
        self.config.looks.has(Looks::LISTENERS).then_some(if host { Reach::Host } else { Reach::All })
    }

    fn hearing(&self, service: u32) -> Option<Hearing> {
        let load = self.maps.service_load(service)?;
        Some(Hearing { bound: load.bound.get(), unheard: load.unheard.get() })
    }

    fn set_unheard(&mut self, service: u32, bound: u64) {
        if let Some(load) = self.maps.service_load(service) {
            load.unheard.set(bound);
        }
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

/// Adds only: the hooks add to the same counters at the same time.
fn correct(opened: &Cell64, closed: &Cell64, by: i64) {
    if by > 0 { opened.add(by.unsigned_abs()) } else { closed.add(by.unsigned_abs()) }
}
