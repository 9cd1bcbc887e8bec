//! The data plane in the kernel: programs, links and maps, all pinned, so that they outlive the agent.

mod adopt;
mod apply;
mod attach;
mod bpf;
mod cgroup;
mod conntrack;
mod drain;
mod effective;
mod events;
#[cfg(feature = "fault-injection")]
mod fault_injection;
mod foreign_programs;
mod hooks;
mod host;
mod interfaces;
mod log;
mod maps;
mod mmap_array;
mod object;
mod other_abi;
mod pins;
mod pod;
mod probes;
mod read;

pub use self::log::HookLog;
pub use cgroup::cgroup_root;
pub use conntrack::{ConntrackMaps, CtConnection};
pub use drain::{Drain, drain};
pub use events::Events;
pub use foreign_programs::{ForeignProgram, foreign_programs};
pub use hooks::{HOOKS, HookRow, all_run, measure, rows as hook_rows};
pub use host::{age, find_cgroup, monotonic, netns_cookie};
pub use interfaces::{InterfaceWarning, Interfaces, PACKET_HOOKS, RemoteClients};
pub use maps::Maps;
pub use pins::{Lock, Pins};
pub use pod::from_bytes;
pub use probes::{Answer, Probes};
pub use read::{MapRow, affinities, map_rows};

use std::{
    collections::BTreeMap,
    fs::File,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use aya::Ebpf;
use aya_log::Level;
use proxymatic_common::{ABI_VERSION, Cell64, Config, HookFlags, Loopback};

use super::{AgentReport, Counters, Counts, Error, ListenerScope, ListenerSeq, MapWriter, Takeover};
use crate::plan::{Capacity, MapOp, MapState};

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
    pub looks: HookFlags,
    /// Sockets with this SO_MARK are left alone; 0 for none.
    pub bypass_mark: u32,
    /// One of so many connections is told as it happens; 0 for none.
    pub sample: u32,
    /// How clients on other machines are served.
    pub remote: RemoteClients,
    /// Whether the hooks log what they decide, and how much of it.
    pub log: Option<Level>,
    /// How many entries new maps get. Maps that are pinned already keep theirs.
    pub capacity: Capacity,
}

/// How often is looked whether a version that was replaced is over.
const LOOK: Duration = Duration::from_secs(5);

/// The data plane in the kernel, with the lock that says it is ours.
#[derive(Debug)]
pub struct Kernel {
    maps: Maps,
    config: Config,
    pins: Pins,
    cgroup: File,
    /// The programs, while another version serves: they wait for tables that are complete.
    waiting: Option<Ebpf>,
    /// Who keeps the hooks of interfaces where they are wanted, until he is asked for.
    interfaces: Option<Interfaces>,
    /// Whether there are to be such hooks.
    remote: bool,
    /// Whether connections go by these tables, for those who cannot ask.
    serves: Arc<AtomicBool>,
    /// When versions that were replaced are looked at next; never where there are none.
    look: Option<Instant>,
    log: Option<HookLog>,
    _lock: Lock,
}

impl Kernel {
    /// Checks the host, takes the lock, loads the programs, adopts or makes the maps and puts the hooks in place.
    ///
    /// Whatever was pinned goes on serving until the moment it is replaced, and stays where something fails. Where that
    /// is another version of the layouts, it goes on serving until [`Takeover::take_over`] is called.
    ///
    /// # Errors
    /// Something is missing on this host, another agent is at it, or the kernel refuses; nothing new is left attached.
    pub fn start(settings: &Settings) -> Result<Self, Error> {
        host::check(&settings.bpffs)?;
        let cgroup = match &settings.cgroup {
            Some(path) => path.clone(),
            None => cgroup_root()?,
        };
        if cgroup::is_own(&cgroup) {
            tracing::warn!(
                "{} is not the host's root but this container's own cgroup: only programs in there are served; \
                 without --cgroup the host's is looked for",
                cgroup.display()
            );
        }
        let cgroup = host::open_cgroup(&cgroup)?;
        let host_netns = match settings.loopback {
            Loopback::HOST => netns_cookie()?,
            // Good to know, but nothing that was asked for depends on it.
            _ => netns_cookie().unwrap_or(0),
        };
        let (pins, lock) = Pins::make(&settings.bpffs)?;
        pins.remove_orphans()?;
        maps::check(&pins)?;
        interfaces::refuse(&pins, &settings.remote)?;
        let mut object = object::load(&pins, settings.capacity, &settings.remote, settings.log)?;
        let log = settings.log.map(|_| HookLog::of(&mut object)).transpose()?;
        attach::load(&mut object)?;
        let interfaces = if settings.remote.is_wanted() {
            interfaces::load(&mut object, &settings.remote)?;
            Some(Interfaces::new(&mut object, &pins, settings.remote.clone())?)
        } else {
            None
        };
        let maps = Maps::open(&pins)?;
        let before = maps.config();
        let snat_ports = &settings.remote.snat_ports;
        let (snat_first, snat_last) =
            if settings.remote.is_wanted() { (*snat_ports.start(), *snat_ports.end()) } else { (0, 0) };
        let config = Config {
            abi: ABI_VERSION,
            loopback: settings.loopback,
            host_netns,
            cgroup: host::cgroup_id(&cgroup)?,
            heartbeat: monotonic(),
            pid: std::process::id(),
            agent: proxymatic_common::AgentState::INITIALIZING,
            agent_tgid: host::initial_pid(),
            bypass_mark: settings.bypass_mark,
            hook_flags: settings.looks,
            event_sample_rate: settings.sample,
            snat_first: snat_first.into(),
            snat_last: snat_last.into(),
            ..before
        };
        // Before the hooks: they read it from their first run on.
        maps.set_config(config);
        let mut kernel = Self {
            maps,
            config,
            pins,
            cgroup,
            waiting: Some(object),
            interfaces,
            remote: settings.remote.is_wanted(),
            serves: Arc::default(),
            look: Some(Instant::now()),
            log,
            _lock: lock,
        };
        match kernel.pins.served_by() {
            Some(version) => tracing::info!(
                "version {version} serves, and goes on until version {ABI_VERSION} knows all that every source says"
            ),
            None => kernel.take_over()?,
        }
        Ok(kernel)
    }

    /// Who keeps the hooks of interfaces where they are wanted; `None` where no interface is served. To be asked for once.
    ///
    /// He is to begin once the flag is set: until then another version serves.
    pub fn take_interfaces(&mut self) -> Option<(Interfaces, Arc<AtomicBool>)> {
        self.interfaces.take().map(|interfaces| (interfaces, Arc::clone(&self.serves)))
    }

    /// What the hooks log, where they do: once.
    pub fn take_log(&mut self) -> Option<HookLog> {
        self.log.take()
    }

    /// What is left of versions that nobody needs any more.
    fn collect(&mut self) -> Result<(), Error> {
        let mut left = false;
        for other in self.pins.other_versions() {
            if other.is_idle() {
                let removed = other.remove_all()?.len();
                tracing::info!("no connection of version {} is open: its {removed} pins were removed", other.version());
            }
            left |= other.root.exists();
        }
        self.look = left.then(|| Instant::now() + LOOK);
        Ok(())
    }
}

impl Counters for Kernel {
    fn active(&self, backend: u32) -> u64 {
        self.maps.load(backend).map_or(0, |load| load.active())
    }

    fn counts(&self, backend: u32) -> Counts {
        let Some(load) = self.maps.load(backend) else { return Counts::default() };
        let ejected = load.ejected_until.get().saturating_sub(monotonic());
        Counts { opened: load.opened.get(), closed: load.closed.get(), ejected: Duration::from_nanos(ejected) }
    }

    fn service_counts(&self, service: u32) -> Counts {
        let Some(load) = self.maps.service_load(service) else { return Counts::default() };
        Counts { opened: load.opened.get(), closed: load.closed.get(), ejected: Duration::ZERO }
    }

    fn eject(&mut self, backend: u32, time: Duration) {
        if let Some(load) = self.maps.load(backend) {
            load.ejected_until.set(monotonic() + time.as_nanos() as u64);
        }
    }

    fn readmit(&mut self, backend: u32) {
        if let Some(load) = self.maps.load(backend) {
            load.consecutive_failures.set(0);
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

    fn listener_scope(&self) -> Option<ListenerScope> {
        // As the hooks take it: where the host's namespace is not known, each is taken for it.
        let host = self.config.host_netns != 0 && self.config.loopback != Loopback::ALL;
        self.config.hook_flags.has(HookFlags::LISTENERS).then_some(if host {
            ListenerScope::Host
        } else {
            ListenerScope::All
        })
    }

    fn listener_seq(&self, service: u32) -> Option<ListenerSeq> {
        let load = self.maps.service_load(service)?;
        Some(ListenerSeq { bind_seq: load.bound.get(), no_listener_seq: load.no_listener_seq.get() })
    }

    fn set_no_listener(&mut self, service: u32, bound: u64) {
        if let Some(load) = self.maps.service_load(service) {
            load.no_listener_seq.set(bound);
        }
    }
}

impl MapWriter for Kernel {
    fn tables(&self) -> Result<MapState, Error> {
        self.maps.tables()
    }

    fn is_complete(&self) -> bool {
        self.config.synced != 0
    }

    fn apply(&mut self, op: &MapOp) -> Result<(), Error> {
        #[cfg(feature = "fault-injection")]
        fault_injection::before_write();
        self.maps.apply(op)
    }

    fn cgroup(&self, path: &str) -> Option<u64> {
        find_cgroup(&cgroup_root().ok()?, path)
    }

    fn drained(&self) -> BTreeMap<u32, u32> {
        // What cannot be read now is read with the next tick; until then what was published stays.
        self.maps.drained().unwrap_or_default()
    }

    fn drain(&mut self, backend: u32, generation: u32) {
        if let Err(error) = self.maps.set_drained(backend, Some(generation)) {
            tracing::warn!("{error}");
        }
    }

    fn forget_drained(&mut self, backend: u32) {
        if let Err(error) = self.maps.set_drained(backend, None) {
            tracing::warn!("{error}");
        }
    }
}

impl Takeover for Kernel {
    fn is_serving(&self) -> bool {
        self.waiting.is_none()
    }

    fn take_over(&mut self) -> Result<(), Error> {
        let Some(object) = &mut self.waiting else { return Ok(()) };
        let others = self.pins.other_versions();
        let replaced: Vec<_> = others.iter().filter(|other| other.serves()).collect();
        attach::put(object, &self.pins, &self.cgroup, &others)?;
        for other in replaced {
            other.detach_forward_hooks()?;
            // Not at once: a hook of its that has just begun may not have counted yet.
            self.look = Some(Instant::now() + LOOK);
            tracing::info!("version {ABI_VERSION} serves in place of version {}", other.version());
        }
        if !self.remote && (self.pins.serves_interfaces() || others.iter().any(Pins::serves_interfaces)) {
            for removed in interfaces::remove_all(&self.pins)? {
                tracing::info!("no interface is to be served any more: removed {removed}");
            }
        }
        self.waiting = None;
        self.serves.store(true, Ordering::Release);
        Ok(())
    }

    fn publish_status(&mut self, said: AgentReport) {
        if self.waiting.is_none()
            && self.look.is_some_and(|at| at <= Instant::now())
            && let Err(error) = self.collect()
        {
            self.look = Some(Instant::now() + LOOK);
            tracing::warn!("{error}; trying again");
        }
        let now = monotonic();
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
