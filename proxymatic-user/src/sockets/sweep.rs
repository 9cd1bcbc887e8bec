//! `Sweeper`: walks through the sockets of all network namespaces, with one sock_diag dump for each.

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
    PROTOCOL_TCP, PROTOCOL_UDP, Socket,
    maps::{MapDef as _, Sockets},
};
use tokio::sync::mpsc;

use super::{
    AutobindPorts, BackendRef, ConntrackUsage, Listening, Row, SweepReport, SweepRequest,
    diag::Diag,
    listening::ListeningSocket,
    namespaces::{self, NetnsGuard},
    udp_storage::read_udp_storage,
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

/// Carries out sweep requests, one after the other.
pub struct Sweeper {
    /// The map of translations; sock_diag takes its descriptor.
    map: MapData,
    /// The map of translations again, for look-ups.
    storage: SkStorage<MapData, Socket>,
    /// The connections of remote clients.
    conntrack: ConntrackMaps,
}

impl Sweeper {
    /// Opens the pinned maps.
    ///
    /// # Errors
    /// Fails if a map is not pinned.
    pub fn open(pins: &Pins) -> Result<Self, Error> {
        let failed = |error: &dyn std::error::Error| Error::kernel(format!("open {}", Sockets::NAME), error);
        let open = || MapData::from_pin(pins.map(Sockets::NAME)).map_err(|error| failed(&error));
        let storage = SkStorage::try_from(Map::SkStorage(open()?)).map_err(|error| failed(&error))?;
        Ok(Self { map: open()?, storage, conntrack: ConntrackMaps::open(pins)? })
    }

    /// Starts a thread that carries out requests until the channel closes, with one report for each.
    ///
    /// # Errors
    /// Fails if the thread cannot be started.
    pub fn start(
        self,
        uses: EnabledFeatures,
        mut requests: mpsc::Receiver<SweepRequest>,
        report: impl Fn(SweepReport) + Send + 'static,
    ) -> io::Result<()> {
        let work = move || {
            privileges::drop_to(Thread::Sockets, uses).expect("a thread may drop capabilities");
            while let Some(request) = requests.blocking_recv() {
                report(self.sweep(&request));
            }
        };
        thread::Builder::new().name(Thread::Sockets.name().into()).spawn(work).map(drop)
    }

    /// Carries out one request. The calling thread enters each namespace and is back when this returns.
    pub fn sweep(&self, request: &SweepRequest) -> SweepReport {
        let began = Instant::now();
        let mut report = SweepReport { limitation: namespaces::limitation(), ..SweepReport::default() };
        report.census = (request.census && report.limitation.is_none()).then(Default::default);
        let everywhere = request.listeners == Some(ListenerScope::All);
        report.listening = (everywhere && report.limitation.is_none()).then(Default::default);
        if request.visits_all_netns() {
            self.visit_all_netns(request, &mut report);
        }
        if request.visits_conntrack()
            && self.conntrack.capacity() > 0
            && let Err(error) = self.sweep_conntrack(request, &mut report)
        {
            report.census = None;
            report.limitation.get_or_insert_with(|| error.to_string());
        }
        if request.listeners == Some(ListenerScope::Host) {
            report.listening = Some(Listening::default());
        }
        if let Some(listening) = &mut report.listening {
            listening.autobind = AutobindPorts::read();
            // The agent is in the host's namespace.
            let found = Diag::open().and_then(|mut diag| each_listener(&mut diag, |it| listening.add_of_host(&it)));
            if let Err(error) = found {
                record_limitation(&mut report, &format!("the sockets of this namespace: {error}"));
            }
        }
        report.took = began.elapsed();
        report
    }

    /// Visits the conntrack entries, because remote clients have no sockets on this host.
    fn sweep_conntrack(&self, request: &SweepRequest, report: &mut SweepReport) -> Result<(), Error> {
        let now = monotonic();
        let (mut removed, mut kept) = (Vec::new(), 0);
        for open in [true, false] {
            self.conntrack.each(open, now, |connection| {
                let forgotten = request.should_remove_entry(&connection, now);
                if let Some(why) = forgotten {
                    *report.forgotten.entry(why).or_default() += 1;
                }
                if forgotten.is_some() || connection.is_expired(now) {
                    removed.push(connection);
                    return;
                }
                kept += u64::from(open);
                if connection.counts_as_open()
                    && connection.client.protocol == PROTOCOL_TCP
                    && let Some(census) = &mut report.census
                {
                    let owner =
                        BackendRef { backend: connection.entry.backend, generation: connection.entry.generation };
                    *census.entry(owner).or_default() += 1;
                }
            })?;
        }
        report.remote = Some(ConntrackUsage { connections: kept, capacity: self.conntrack.capacity().into() });
        removed.iter().try_for_each(|connection| self.conntrack.remove(connection))
    }

    fn visit_all_netns(&self, request: &SweepRequest, report: &mut SweepReport) {
        let all = NetnsGuard::here().and_then(|home| Ok((home, namespaces::all()?)));
        let (home, found) = match all {
            Ok(all) => all,
            Err(error) => return record_limitation(report, &format!("the network namespaces: {error}")),
        };
        for namespace in found.values() {
            match home.run_in(namespace, || self.sweep_netns(request, report)) {
                Ok(Some(())) => {}
                // The process in that namespace has ended; other processes may still be in it.
                Ok(None) => report.listening = None,
                Err(error) => record_limitation(report, &format!("the sockets of {}: {error}", namespace.display())),
            }
        }
    }

    /// Visits all sockets of the namespace that this thread is in.
    fn sweep_netns(&self, request: &SweepRequest, report: &mut SweepReport) -> io::Result<()> {
        let map = self.map.fd().as_fd().as_raw_fd();
        let mut diag = Diag::open()?;
        if let Some(listening) = &mut report.listening {
            each_listener(&mut diag, |it| listening.ports.extend([(it.protocol, it.port)]))?;
        }
        let mut seen = BTreeSet::new();
        let mut rows = Vec::new();
        for protocol in PROTOCOLS.into_iter().filter(|protocol| request.visits_protocol(*protocol)) {
            for family in FAMILIES {
                diag.dump(family, protocol, map, |row| {
                    // The kernel may show a socket twice if other sockets are opened and closed meanwhile.
                    if !seen.insert(row.cookie()) {
                        return;
                    }
                    if let Some(census) = &mut report.census {
                        for owner in counted(&row) {
                            *census.entry(owner).or_default() += 1;
                        }
                    }
                    if request.should_destroy(&row).is_some() || (protocol == PROTOCOL_UDP && request.may_destroy(&row))
                    {
                        rows.push(row);
                    }
                })?;
            }
        }
        let inodes = rows.iter().filter(|row| row.protocol == PROTOCOL_UDP).map(|row| row.inode).collect();
        let stored = read_udp_storage(&self.storage, &inodes);
        for mut row in rows {
            if let Some(socket) = stored.get(&row.inode) {
                row.socket = *socket;
            }
            if let Some((owner, why)) = request.should_destroy(&row)
                && diag.destroy(&row)?
            {
                *report.ended.entry((owner, why)).or_default() += 1;
            }
        }
        Ok(())
    }
}

/// Calls `each` with the listeners in the namespace of this `Diag`.
fn each_listener(diag: &mut Diag, mut each: impl FnMut(ListeningSocket)) -> io::Result<()> {
    for protocol in PROTOCOLS {
        for family in FAMILIES {
            diag.listeners(family, protocol, &mut each)?;
        }
    }
    Ok(())
}

/// Records why the sweep is incomplete. An incomplete census is none.
fn record_limitation(report: &mut SweepReport, what: &str) {
    report.census = None;
    report.listening = None;
    report.limitation.get_or_insert_with(|| format!("cannot look at {what}; run the agent as root, with --privileged"));
}

fn counted(row: &Row) -> impl Iterator<Item = BackendRef> {
    let open = row.socket.ring.iter().filter(|made| made.counted != 0);
    open.map(|made| BackendRef { backend: made.backend, generation: made.generation })
}
