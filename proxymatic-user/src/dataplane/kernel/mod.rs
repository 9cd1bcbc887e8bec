//! The data plane in the kernel: programs, links and maps, all pinned, so that they outlive the agent.

mod adopt;
mod apply;
mod attach;
mod bpf;
mod cgroup;
mod conntrack;
mod detach;
mod drain;
mod effective;
mod events;
#[cfg(feature = "fault-injection")]
mod fault_injection;
mod foreign_programs;
mod hook_names;
mod hook_row;
mod hooks;
mod host;
mod interfaces;
mod log;
mod maps;
mod mmap_array;
mod netns_map;
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
pub use hook_names::{HOOKS, PACKET_HOOKS};
pub use hook_row::HookRow;
pub use hooks::{all_run, measure, rows as hook_rows};
pub use host::{age, find_cgroup, monotonic, netns_cookie};
pub use interfaces::{InterfaceWarning, Interfaces, RemoteClients};
pub use maps::Maps;
use maps::map_name;
pub use netns_map::NetnsMap;
pub use pins::{Lock, Pins};
pub use pod::from_bytes;
pub use probes::{Answer, Probes};
pub use read::{MapRow, affinities, direct_peers, map_rows};

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
use proxymatic_common::{
    ABI_VERSION, Cell64, Config, HookFlags, ListenerEntry, ListenerKey, Loopback, maps::Listeners,
};

use super::{AgentReport, Counters, Counts, Error, ListenerScope, ListenerSeq, MapReader as _, MapWriter, Takeover};
use crate::plan::{Capacity, MapOp, MapState};

/// How to set up the data plane.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder of the pins; it must be on a bpffs.
    pub bpffs: PathBuf,
    /// The cgroup whose sockets are served; `None` for the host's root cgroup.
    pub cgroup: Option<PathBuf>,
    /// The network namespaces in which loopback addresses resolve to services.
    pub loopback: Loopback,
    /// The optional checks that the hooks make.
    pub hook_flags: HookFlags,
    /// Hooks bypass sockets that have this SO_MARK; 0 for none.
    pub bypass_mark: u32,
    /// The hooks emit an event for one in this many connections; 0 for none.
    pub event_sample_rate: u32,
    /// The settings for clients on other machines.
    pub remote: RemoteClients,
    /// The level at which the hooks log; `None` if they do not log.
    pub log: Option<Level>,
    /// How many entries new maps get. Pinned maps keep their size.
    pub capacity: Capacity,
}

/// How often the agent checks whether a replaced map ABI version is idle.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(5);

/// The data plane in the kernel. It holds the lock on the pins.
#[derive(Debug)]
pub struct Kernel {
    maps: Maps,
    config: Config,
    pins: Pins,
    cgroup: File,
    /// The loaded programs while another map ABI version serves; they are attached once the maps are complete.
    pending_object: Option<Ebpf>,
    /// The task that keeps the hooks of interfaces attached, until it is taken.
    interfaces: Option<Interfaces>,
    /// Whether clients on other machines are to be served.
    wants_remote: bool,
    /// Whether this map ABI version serves; shared with the thread of the interfaces.
    is_serving: Arc<AtomicBool>,
    /// When replaced map ABI versions are checked next; `None` if there are none.
    next_cleanup: Option<Instant>,
    log: Option<HookLog>,
    _lock: Lock,
}

impl Kernel {
    /// Checks the host, takes the lock, loads the programs, opens or creates the maps and attaches the hooks.
    ///
    /// Existing pins serve until they are replaced, and stay if this fails. If another map ABI version serves, it
    /// does so until [`Takeover::take_over`] is called.
    ///
    /// # Errors
    /// Fails if the host lacks something, another agent has the lock, or the kernel refuses; no new hook stays
    /// attached.
    pub fn start(settings: &Settings) -> Result<Self, Error> {
        host::check(&settings.bpffs)?;
        let agent_tgid = host::initial_tgid()?;
        let cgroup = match &settings.cgroup {
            Some(path) => path.clone(),
            None => cgroup_root()?,
        };
        if cgroup::is_own_root(&cgroup) {
            tracing::warn!(
                "{} is not the host's root but this container's own cgroup: only programs in this container are served; \
                remove --cgroup to use the host's root cgroup",
                cgroup.display()
            );
        }
        let cgroup = host::open_cgroup(&cgroup)?;
        let host_netns = match settings.loopback {
            Loopback::HOST => netns_cookie()?,
            // Only informative in the other modes, so a failure does not matter.
            _ => netns_cookie().unwrap_or(0),
        };
        let (pins, lock) = Pins::make(&settings.bpffs)?;
        pins.remove_orphans()?;
        maps::check(&pins)?;
        interfaces::refuse_foreign_xdp(&pins, &settings.remote)?;
        let mut object = object::load(&pins, settings.capacity, &settings.remote, settings.log)?;
        let log = settings.log.map(|_| HookLog::new(&mut object)).transpose()?;
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
            agent_tgid,
            bypass_mark: settings.bypass_mark,
            hook_flags: settings.hook_flags,
            event_sample_rate: settings.event_sample_rate,
            snat_first: snat_first.into(),
            snat_last: snat_last.into(),
            first_unprivileged_port: host::first_unprivileged_port(),
            ..before
        };
        // Before the hooks are attached, because they read the configuration on their first run.
        maps.set_config(config);
        let mut kernel = Self {
            maps,
            config,
            pins,
            cgroup,
            pending_object: Some(object),
            interfaces,
            wants_remote: settings.remote.is_wanted(),
            is_serving: Arc::default(),
            next_cleanup: Some(Instant::now()),
            log,
            _lock: lock,
        };
        match kernel.pins.served_by() {
            Some(version) => tracing::info!(
                "map ABI version {version} serves until version {ABI_VERSION} has an answer from every source"
            ),
            None => kernel.take_over()?,
        }
        Ok(kernel)
    }

    /// Returns the task that keeps the hooks of interfaces attached, once; `None` if no interface is served.
    ///
    /// The task may begin once the flag is set; until then another map ABI version serves.
    pub fn take_interfaces(&mut self) -> Option<(Interfaces, Arc<AtomicBool>)> {
        self.interfaces.take().map(|interfaces| (interfaces, Arc::clone(&self.is_serving)))
    }

    /// Returns the reader of the hooks' log, once; `None` if the hooks do not log.
    pub fn take_log(&mut self) -> Option<HookLog> {
        self.log.take()
    }

    /// Removes the pins of replaced map ABI versions that are idle.
    fn remove_idle_versions(&mut self) -> Result<(), Error> {
        let mut left = false;
        for other in self.pins.other_versions() {
            if other.is_idle() {
                let removed = other.remove_all()?.len();
                tracing::info!(
                    "map ABI version {} has no open connections: removed its {removed} pins",
                    other.version()
                );
            }
            left |= other.root.exists();
        }
        self.next_cleanup = left.then(|| Instant::now() + CLEANUP_INTERVAL);
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
        // As in the hooks: if the host's namespace is unknown, they treat every namespace as the host's.
        let host = self.config.host_netns != 0 && self.config.loopback != Loopback::ALL;
        self.config.hook_flags.has(HookFlags::LISTENERS).then_some(if host {
            ListenerScope::Host
        } else {
            ListenerScope::All
        })
    }

    fn listener_seq(&self, service: u32) -> Option<ListenerSeq> {
        let load = self.maps.service_load(service)?;
        Some(ListenerSeq { bind_seq: load.bind_seq.get(), no_listener_seq: load.no_listener_seq.get() })
    }

    fn set_no_listener(&mut self, service: u32, bound: u64) {
        if let Some(load) = self.maps.service_load(service) {
            load.no_listener_seq.set(bound);
        }
    }

    fn published_listeners(&self) -> BTreeMap<ListenerKey, ListenerEntry> {
        // If the map cannot be read, the next look reads it again.
        self.maps.rows::<Listeners>().map(|rows| rows.into_iter().collect()).unwrap_or_default()
    }

    fn publish_listener(&mut self, key: ListenerKey, entry: Option<ListenerEntry>) {
        if let Err(error) = self.maps.set_keyed::<Listeners>(&key, entry.as_ref()) {
            let (name, port) = (map_name::<Listeners>(), key.port.get());
            tracing::warn!("{}", Error::kernel(format!("write the listener on port {port} to {name}"), &error));
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
        // If the map cannot be read, the next tick reads it again; what was published stays until then.
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
        self.pending_object.is_none()
    }

    fn take_over(&mut self) -> Result<(), Error> {
        let Some(object) = &mut self.pending_object else { return Ok(()) };
        let others = self.pins.other_versions();
        let replaced: Vec<_> = others.iter().filter(|other| other.serves()).collect();
        attach::attach_all(object, &self.pins, &self.cgroup, &others)?;
        for other in replaced {
            other.detach_forward_hooks()?;
            // Not at once, because a hook of the replaced version that has just begun may not have counted yet.
            self.next_cleanup = Some(Instant::now() + CLEANUP_INTERVAL);
            tracing::info!("map ABI version {ABI_VERSION} serves in place of version {}", other.version());
        }
        if !self.wants_remote && (self.pins.serves_interfaces() || others.iter().any(Pins::serves_interfaces)) {
            for removed in interfaces::remove_all(&self.pins)? {
                tracing::info!("no interface is served any more: removed {removed}");
            }
        }
        self.pending_object = None;
        self.is_serving.store(true, Ordering::Release);
        Ok(())
    }

    fn publish_status(&mut self, report: AgentReport) {
        if self.pending_object.is_none()
            && self.next_cleanup.is_some_and(|at| at <= Instant::now())
            && let Err(error) = self.remove_idle_versions()
        {
            self.next_cleanup = Some(Instant::now() + CLEANUP_INTERVAL);
            tracing::warn!("{error}; retrying in {} s", CLEANUP_INTERVAL.as_secs());
        }
        let now = monotonic();
        self.config.heartbeat = now;
        self.config.agent = report.agent;
        if report.synced {
            self.config.synced = now;
        }
        self.maps.set_config(self.config);
    }
}

/// Only adds, because the hooks add to the same counters at the same time.
fn correct(opened: &Cell64, closed: &Cell64, by: i64) {
    if by > 0 { opened.add(by.unsigned_abs()) } else { closed.add(by.unsigned_abs()) }
}
