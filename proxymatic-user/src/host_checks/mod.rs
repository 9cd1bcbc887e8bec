//! What on this host is in the way of services, though the agent works: looked for at the start and again each minute, by
//! a thread of its own.

mod kernel;
mod neighbours;
mod ports;
mod reserved;

pub use ports::PortSet;
pub use reserved::{Reserved, give_back};

use std::{
    fs, io,
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use crate::{
    dataplane::kernel::Pins,
    model::Warning,
    privileges::{self, EnabledFeatures, Thread},
};

/// How often all is looked at.
const EVERY: Duration = Duration::from_secs(60);

/// What this looks at.
#[derive(Debug)]
pub struct HostChecks {
    /// The folder of the cgroup that is served.
    pub cgroup: Option<PathBuf>,
    /// Whose programs are ours.
    pub pins: Pins,
    /// Where it is kept which ports were reserved.
    pub reserved: PathBuf,
    /// Whether service ports are to be reserved.
    pub reserve: bool,
    /// Ports that are to be reserved in any case.
    pub always: PortSet,
}

impl HostChecks {
    /// Starts a thread that takes the service ports whenever they have changed, and reports all that is in the way, each
    /// time it has looked; until nobody can send ports any more.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(
        self,
        uses: EnabledFeatures,
        ports: Receiver<PortSet>,
        report: impl Fn(Vec<Warning>) + Send + 'static,
    ) -> io::Result<()> {
        let work = move || {
            if let Err(error) = privileges::drop_to(Thread::Host, uses) {
                return tracing::error!("cannot give up capabilities: {error}; this host is not looked at");
            }
            let mut known = None;
            loop {
                report(self.look(known.as_ref()));
                match ports.recv_timeout(EVERY) {
                    Ok(first) => known = Some(ports.try_iter().last().unwrap_or(first)),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        thread::Builder::new().name(Thread::Host.name().into()).spawn(work).map(drop)
    }

    /// Looks once. Ports that are not known yet are neither reserved nor given back.
    pub fn look(&self, ports: Option<&PortSet>) -> Vec<Warning> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let version = kernel::Version::of(&read("/proc/sys/kernel/osrelease"), &read("/proc/version"));
        // Those of the host where this process sees it, else those of its own container.
        let mounts =
            Some(read("/proc/1/mounts")).filter(|text| !text.is_empty()).unwrap_or_else(|| read("/proc/mounts"));
        let reserved = Reserved::at(self.reserved.clone());
        let unreserved = match ports {
            Some(ports) if self.reserve => reserved.keep(&ports.and(&self.always)).err(),
            // Which service ports there are is not known yet.
            None if self.reserve => reserved.add(&self.always).err(),
            _ => reserved.keep(&self.always).err(),
        };
        let range = read(ports::RANGE);
        let unreserved = unreserved.or_else(|| ports::unreserved(&range, &read(ports::RESERVED), ports?));
        let found = [
            neighbours::found(self.cgroup.as_deref(), &self.pins),
            kernel::classids(version, &read("/proc/cgroups")),
            kernel::clients(version, &mounts),
            unreserved,
            ports.and_then(|ports| ports::borrowed(&self.always, ports)),
        ];
        found.into_iter().flatten().map(|reason| Warning { app: "host".into(), reason }).collect()
    }
}
