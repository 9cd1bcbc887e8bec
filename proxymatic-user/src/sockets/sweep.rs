//! The walk through all namespaces: one dump of each, all questions answered from it.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    thread,
    time::Instant,
};

use aya::maps::{Map, MapData, SkStorage};
use nix::libc;
use proxymatic_common::{
    PROTOCOL_TCP, PROTOCOL_UDP, Port, Socket,
    maps::{MapDef as _, Sockets},
};
use tokio::sync::mpsc;

use super::{
    BackendRef, Kept, Row, SweepReport, SweepRequest,
    diag::Diag,
    namespaces::{self, NetnsGuard},
    udp_storage::remembered,
};
use crate::{
    dataplane::{
        Error, ListenerScope,
        kernel::{ConntrackMaps, Pins, monotonic},
    },
    privileges::{self, EnabledFeatures, Thread},
};

pub(super) const FAMILIES: [u8; 2] = [libc::AF_INET as u8, libc::AF_INET6 as u8];
const PROTOCOLS: [u8; 2] = [PROTOCOL_TCP, PROTOCOL_UDP];

/// Does jobs, one after the other.
pub struct Sweeper {
    /// To be named to sock_diag by its descriptor.
    map: MapData,
    /// The same, to be asked.
    asked: SkStorage<MapData, Socket>,
    /// What the hooks remember of clients on other machines.
    remotes: ConntrackMaps,
}

impl Sweeper {
    /// With the pinned map of what sockets remember.
    ///
    /// # Errors
    /// It is not pinned.
    pub fn open(pins: &Pins) -> Result<Self, Error> {
        let failed = |error: &dyn std::error::Error| Error::kernel(format!("open {}", Sockets::NAME), error);
        let open = || MapData::from_pin(pins.map(Sockets::NAME)).map_err(|error| failed(&error));
        let asked = SkStorage::try_from(Map::SkStorage(open()?)).map_err(|error| failed(&error))?;
        Ok(Self { map: open()?, asked, remotes: ConntrackMaps::open(pins)? })
    }

    /// Starts a thread that does jobs until there are no more; each gets one report.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(
        self,
        uses: EnabledFeatures,
        mut jobs: mpsc::Receiver<SweepRequest>,
        report: impl Fn(SweepReport) + Send + 'static,
    ) -> io::Result<()> {
        let work = move || {
            privileges::drop_to(Thread::Sockets, uses).expect("capabilities can be given up");
            while let Some(job) = jobs.blocking_recv() {
                report(self.sweep(&job));
            }
        };
        thread::Builder::new().name(Thread::Sockets.name().into()).spawn(work).map(drop)
    }

    /// Does one job. Enters every namespace with the calling thread, which is back when this returns.
    pub fn sweep(&self, job: &SweepRequest) -> SweepReport {
        let began = Instant::now();
        let mut report = SweepReport { limitation: namespaces::blind(), ..SweepReport::default() };
        report.census = (job.census && report.limitation.is_none()).then(Default::default);
        let everywhere = job.listeners == Some(ListenerScope::All);
        report.listening_ports = (everywhere && report.limitation.is_none()).then(Default::default);
        if job.visits_all_netns() {
            self.go_round(job, &mut report);
        }
        if job.looks_at_remotes()
            && self.remotes.room() > 0
            && let Err(error) = self.look_at_remotes(job, &mut report)
        {
            report.census = None;
            report.limitation.get_or_insert_with(|| error.to_string());
        }
        if job.listeners == Some(ListenerScope::Host) {
            let mut heard = BTreeSet::new();
            match Diag::open().and_then(|mut diag| ports(&mut diag, &mut heard)) {
                Ok(()) => report.listening_ports = Some(heard),
                Err(error) => missed(&mut report, &format!("the sockets of this namespace: {error}")),
            }
        }
        report.took = began.elapsed();
        report
    }

    /// Clients on other machines have no sockets here.
    fn look_at_remotes(&self, job: &SweepRequest, report: &mut SweepReport) -> Result<(), Error> {
        let now = monotonic();
        let (mut over, mut kept) = (Vec::new(), 0);
        for open in [true, false] {
            self.remotes.each(open, now, |connection| {
                let forgotten = job.forgets(&connection, now);
                if let Some(why) = forgotten {
                    *report.forgotten.entry(why).or_default() += 1;
                }
                if forgotten.is_some() || connection.is_over(now) {
                    over.push(connection);
                    return;
                }
                kept += u64::from(open);
                if connection.counts()
                    && connection.client.protocol == PROTOCOL_TCP
                    && let Some(census) = &mut report.census
                {
                    let owner = BackendRef { backend: connection.half.backend, generation: connection.half.generation };
                    *census.entry(owner).or_default() += 1;
                }
            })?;
        }
        report.remote = Some(Kept { connections: kept, room: self.remotes.room().into() });
        over.iter().try_for_each(|connection| self.remotes.forget(connection))
    }

    fn go_round(&self, job: &SweepRequest, report: &mut SweepReport) {
        let all = NetnsGuard::here().and_then(|home| Ok((home, namespaces::found()?)));
        let (home, found) = match all {
            Ok(all) => all,
            Err(error) => return missed(report, &format!("the network namespaces: {error}")),
        };
        for namespace in found.values() {
            match home.run_in(namespace, || self.within(job, report)) {
                Ok(Some(())) => {}
                // The process that led there has ended; others may still be there.
                Ok(None) => report.listening_ports = None,
                Err(error) => missed(report, &format!("the sockets of {}: {error}", namespace.display())),
            }
        }
    }

    /// All sockets of the namespace that this thread is in.
    fn within(&self, job: &SweepRequest, report: &mut SweepReport) -> io::Result<()> {
        let map = self.map.fd().as_fd().as_raw_fd();
        let mut diag = Diag::open()?;
        if let Some(heard) = &mut report.listening_ports {
            ports(&mut diag, heard)?;
        }
        let mut seen = BTreeSet::new();
        let mut rows = Vec::new();
        for protocol in PROTOCOLS.into_iter().filter(|protocol| job.looks_at(*protocol)) {
            for family in FAMILIES {
                diag.dump(family, protocol, map, |row| {
                    // The kernel may show one twice, where others come and go beside it.
                    if !seen.insert(row.cookie()) {
                        return;
                    }
                    if let Some(census) = &mut report.census {
                        for owner in counted(&row) {
                            *census.entry(owner).or_default() += 1;
                        }
                    }
                    if job.should_destroy(&row).is_some() || (protocol == PROTOCOL_UDP && job.may_destroy(&row)) {
                        rows.push(row);
                    }
                })?;
            }
        }
        let asked = rows.iter().filter(|row| row.protocol == PROTOCOL_UDP).map(|row| row.inode).collect();
        let remembered = remembered(&self.asked, &asked);
        for mut row in rows {
            if let Some(socket) = remembered.get(&row.inode) {
                row.socket = *socket;
            }
            if let Some((owner, why)) = job.should_destroy(&row)
                && diag.destroy(&row)?
            {
                *report.ended.entry((owner, why)).or_default() += 1;
            }
        }
        Ok(())
    }
}

/// The ports of the namespace that the conversation is about which somebody listens on.
fn ports(diag: &mut Diag, heard: &mut BTreeSet<(u8, Port)>) -> io::Result<()> {
    for protocol in PROTOCOLS {
        for family in FAMILIES {
            diag.ports(family, protocol, |port| heard.extend([(protocol, port)]))?;
        }
    }
    Ok(())
}

/// What is not whole is no census.
fn missed(report: &mut SweepReport, what: &str) {
    report.census = None;
    report.listening_ports = None;
    report.limitation.get_or_insert_with(|| format!("cannot look at {what}; run the agent as root, with --privileged"));
}

fn counted(row: &Row) -> impl Iterator<Item = BackendRef> {
    let open = row.socket.ring.iter().filter(|made| made.counted != 0);
    open.map(|made| BackendRef { backend: made.backend, generation: made.generation })
}
