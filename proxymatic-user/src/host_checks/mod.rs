//! Checks the host for problems that keep services from being reached: at the start and every minute, on a thread of
//! its own.

mod foreign_programs;
mod kernel;
mod nat;
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

/// How often the checks run.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The settings of the checks.
#[derive(Debug)]
pub struct HostChecks {
    /// The folder of the served cgroup.
    pub cgroup: Option<PathBuf>,
    /// The pins, to recognize our own programs.
    pub pins: Pins,
    /// The file that records which ports the agent reserved.
    pub reserved: PathBuf,
    /// Whether to reserve service ports.
    pub reserve: bool,
    /// Ports to reserve in any case.
    pub always: PortSet,
}

impl HostChecks {
    /// Starts a thread that receives the service ports when they change, and reports the warnings of each check. It
    /// ends when
    /// `ports` closes.
    ///
    /// # Errors
    /// Fails if the thread cannot be started.
    pub fn start(
        self,
        uses: EnabledFeatures,
        ports: Receiver<PortSet>,
        report: impl Fn(Vec<Warning>) + Send + 'static,
    ) -> io::Result<()> {
        let work = move || {
            if let Err(error) = privileges::drop_to(Thread::Host, uses) {
                return tracing::error!("cannot drop capabilities: {error}; this host is not checked");
            }
            let mut known = None;
            loop {
                report(self.check(known.as_ref()));
                match ports.recv_timeout(CHECK_INTERVAL) {
                    Ok(first) => known = Some(ports.try_iter().last().unwrap_or(first)),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        thread::Builder::new().name(Thread::Host.name().into()).spawn(work).map(drop)
    }

    /// Runs the checks once. While the service ports are unknown, none are reserved or released.
    pub fn check(&self, ports: Option<&PortSet>) -> Vec<Warning> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let version = kernel::Version::of(&read("/proc/sys/kernel/osrelease"), &read("/proc/version"));
        // The mounts of the host if this process sees them, else those of its own container.
        let mounts =
            Some(read("/proc/1/mounts")).filter(|text| !text.is_empty()).unwrap_or_else(|| read("/proc/mounts"));
        let reserved = Reserved::new(self.reserved.clone());
        let unreserved = match ports {
            Some(ports) if self.reserve => reserved.reserve(&ports.union(&self.always)).err(),
            // The service ports are not known yet.
            None if self.reserve => reserved.add(&self.always).err(),
            _ => reserved.reserve(&self.always).err(),
        };
        let range = read(ports::RANGE);
        let unreserved = unreserved.or_else(|| ports::unreserved_warning(&range, &read(ports::RESERVED), ports?));
        let found = [
            foreign_programs::warning(self.cgroup.as_deref(), &self.pins),
            kernel::class_warning(version, &read("/proc/cgroups")),
            kernel::client_warning(version, &mounts),
            unreserved,
            ports.and_then(|ports| ports::snat_port_warning(&self.always, ports)),
            ports.and_then(nat::warning),
        ];
        found.into_iter().flatten().map(|reason| Warning { app: "host".into(), reason }).collect()
    }
}
