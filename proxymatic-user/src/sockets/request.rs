//! What is to be done with sockets, and with which of them. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proxymatic_common::{Address, PROTOCOL_TCP, PROTOCOL_UDP, Port};

use super::Row;
use crate::dataplane::{ListenerScope, kernel::CtConnection};

/// A backend, and which of its owners in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BackendRef {
    /// The id of the backend.
    pub backend: u32,
    /// Its generation.
    pub generation: u32,
}

/// A backend whose task has ended, and whose sockets are to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoneBackend {
    /// Where it listened.
    pub address: Address,
    /// The port it listened on.
    pub port: Port,
    /// Whether TCP connections are reset too, not only UDP sockets.
    pub tcp: bool,
}

impl GoneBackend {
    const fn ends(&self, protocol: u8) -> bool {
        protocol == PROTOCOL_UDP || self.tcp
    }
}

/// How long the connections of a backend may be idle: zero is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// The client's side.
    pub client: Duration,
    /// The backend's side.
    pub server: Duration,
}

impl Idle {
    /// How long a socket may be idle, which is one of both sides; `None` for ever.
    pub fn bound(self) -> Option<Duration> {
        [self.client, self.server].into_iter().filter(|bound| !bound.is_zero()).min()
    }
}

/// One walk through the sockets of all namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepRequest {
    /// Whether translations of TCP sockets that count as open are to be counted.
    pub census: bool,
    /// Where to find the ports that somebody listens on.
    pub listeners: Option<ListenerScope>,
    /// End the connections to these.
    pub gone: BTreeMap<BackendRef, GoneBackend>,
    /// End the connections to these that are idle for too long.
    pub idle: BTreeMap<BackendRef, Idle>,
    /// Whether to forget connections of clients on other machines that are over.
    pub remote: bool,
}

/// Why a socket was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DestroyReason {
    /// Its backend's task has ended.
    GoneBackend,
    /// Nothing has been sent for too long.
    Idle,
}

/// How many connections of clients on other machines are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Those that are open, or were a short while ago.
    pub connections: u64,
    /// For how many there is room; beyond that those are pushed out that are used least.
    pub room: u64,
}

/// What came of a walk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Translations that count as open; `None` where that was not asked for, or not all namespaces could be seen.
    pub census: Option<BTreeMap<BackendRef, u64>>,
    /// IPPROTO number and port of every listener; `None` where that was not asked for, or not all of these
    /// namespaces could be seen.
    pub listening_ports: Option<BTreeSet<(u8, Port)>>,
    /// How many sockets were ended, by backend.
    pub ended: BTreeMap<(BackendRef, DestroyReason), u64>,
    /// How many connections of clients on other machines were forgotten before they were over, by backend.
    pub forgotten: BTreeMap<(BackendRef, DestroyReason), u64>,
    /// How many connections of clients on other machines are kept; `None` where that was not looked at.
    pub remote: Option<Kept>,
    /// Why not everything could be seen or done; one sentence with the remedy.
    pub limitation: Option<String>,
    /// How long it took.
    pub took: Duration,
}

impl SweepRequest {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.listeners.is_none() && !self.visits_all_netns() && !self.remote
    }

    /// Whether it has to do with clients on other machines.
    pub(super) fn looks_at_remotes(&self) -> bool {
        self.remote || self.census || !self.gone.is_empty() || !self.idle.is_empty()
    }

    /// Whether it has to do with more than the agent's own namespace.
    pub(super) fn visits_all_netns(&self) -> bool {
        let all = self.listeners == Some(ListenerScope::All);
        self.census || all || !self.gone.is_empty() || !self.idle.is_empty()
    }

    /// Whether it has to do with sockets of a protocol (IPPROTO number).
    pub(super) fn looks_at(&self, protocol: u8) -> bool {
        (protocol == PROTOCOL_TCP && (self.census || !self.idle.is_empty()))
            || self.gone.values().any(|gone| gone.ends(protocol))
    }

    /// Whether a connection of a client on another machine is to be forgotten before its time, and for whose sake. Then its
    /// client hears from the host that there is none, or of UDP gets another backend.
    pub(super) fn forgets(&self, connection: &CtConnection, now: u64) -> Option<(BackendRef, DestroyReason)> {
        let owner = BackendRef { backend: connection.half.backend, generation: connection.half.generation };
        if self.gone.get(&owner).is_some_and(|gone| gone.ends(connection.client.protocol)) {
            return Some((owner, DestroyReason::GoneBackend));
        }
        let bound = self.idle.get(&owner)?.bound()?;
        (connection.counts() && Duration::from_nanos(connection.idle(now)) > bound)
            .then_some((owner, DestroyReason::Idle))
    }

    /// Whether a socket is connected to where a backend was that is gone, for whatever reason.
    pub(super) fn may_destroy(&self, row: &Row) -> bool {
        let there =
            |gone: &GoneBackend| (gone.address, gone.port) == (row.peer, row.peer_port) && gone.ends(row.protocol);
        row.connected && self.gone.values().any(there)
    }

    /// Whether a socket is to be ended, and for whose sake.
    ///
    /// Never one without a connection: its program would lose its port. Never one whose peer is not the very backend.
    pub(super) fn should_destroy(&self, row: &Row) -> Option<(BackendRef, DestroyReason)> {
        let made = row.connection()?;
        let owner = BackendRef { backend: made.backend, generation: made.generation };
        if let Some(gone) = self.gone.get(&owner)
            && (gone.address, gone.port) == (row.peer, row.peer_port)
            && gone.ends(row.protocol)
        {
            return Some((owner, DestroyReason::GoneBackend));
        }
        let bound = self.idle.get(&owner)?.bound()?;
        (made.counted != 0 && row.idle? > bound).then_some((owner, DestroyReason::Idle))
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proxymatic_common::{CtEntry, CtFlags, CtProgress, FiveTuple, Socket, Translation};

    use super::*;

    const OWNER: BackendRef = BackendRef { backend: 7, generation: 3 };
    const MINUTE: Duration = Duration::from_secs(60);

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    /// A socket that was connected to 10.0.0.2:8001, which is backend 7, and still is.
    fn row(protocol: u8) -> Row {
        let mut socket = Socket::NEW;
        socket.ring[0] = Translation {
            backend_address: address("10.0.0.2"),
            backend_port: Port::new(8001),
            backend: OWNER.backend,
            generation: OWNER.generation,
            counted: 1,
            ..Translation::NONE
        };
        Row::of(protocol, address("10.0.0.2"), Port::new(8001), socket)
    }

    fn gone(tcp: bool) -> SweepRequest {
        let gone = GoneBackend { address: address("10.0.0.2"), port: Port::new(8001), tcp };
        SweepRequest { gone: [(OWNER, gone)].into(), ..SweepRequest::default() }
    }

    #[test]
    fn udp_sockets_of_a_backend_that_is_gone_end_and_tcp_only_on_request() {
        assert_eq!(gone(false).should_destroy(&row(PROTOCOL_UDP)), Some((OWNER, DestroyReason::GoneBackend)));
        assert_eq!(gone(false).should_destroy(&row(PROTOCOL_TCP)), None);
        assert_eq!(gone(true).should_destroy(&row(PROTOCOL_TCP)), Some((OWNER, DestroyReason::GoneBackend)));
        assert!(!gone(false).looks_at(PROTOCOL_TCP));
        assert!(gone(false).looks_at(PROTOCOL_UDP) && gone(true).looks_at(PROTOCOL_TCP));
    }

    #[test]
    fn a_socket_without_a_connection_is_never_ended() {
        let job = gone(true);
        let unconnected = Row { connected: false, peer: Address::ZERO, peer_port: Port::new(0), ..row(PROTOCOL_UDP) };
        assert_eq!(job.should_destroy(&unconnected), None);
        assert_eq!(
            job.should_destroy(&Row { connected: false, ..row(PROTOCOL_TCP) }),
            None,
            "not established, or not any more"
        );
        // Not even where what it has once sent to is the backend.
        let mut sent = unconnected.clone();
        sent.socket.ring = [row(PROTOCOL_UDP).socket.ring[0]; proxymatic_common::RING];
        assert_eq!(job.should_destroy(&sent), None);
    }

    #[test]
    fn a_socket_that_is_connected_elsewhere_now_is_never_ended() {
        let job = gone(true);
        for (peer, port) in [("10.0.0.3", 8001), ("10.0.0.2", 8002)] {
            let elsewhere = Row { peer: address(peer), peer_port: Port::new(port), ..row(PROTOCOL_UDP) };
            assert_eq!(job.should_destroy(&elsewhere), None, "{peer}:{port}");
        }
    }

    #[test]
    fn a_socket_of_another_owner_of_the_id_or_of_nobody_we_know_is_never_ended() {
        let job = gone(true);
        for (backend, generation) in [(7, 4), (8, 3), (0, 0)] {
            let mut other = row(PROTOCOL_UDP);
            (other.socket.ring[0].backend, other.socket.ring[0].generation) = (backend, generation);
            assert_eq!(job.should_destroy(&other), None, "{backend} {generation}");
        }
        // The program itself chose the same address later: it never came by us.
        let mut direct = row(PROTOCOL_UDP);
        direct.socket.ring[0] = Translation::NONE;
        assert_eq!(job.should_destroy(&direct), None);
    }

    #[test]
    fn connections_of_other_machines_are_given_up_for_the_same_reasons() {
        let of = |protocol, owner: BackendRef, seen| CtConnection {
            client: FiveTuple::new((Address::ZERO, Port::new(1)), (Address::ZERO, Port::new(2)), protocol),
            half: CtEntry {
                translated: FiveTuple::new((Address::ZERO, Port::new(3)), (Address::ZERO, Port::new(4)), protocol),
                start: 0,
                last_seen: seen,
                state: 0,
                service: 1,
                backend: owner.backend,
                generation: owner.generation,
                flags: CtFlags::default(),
            },
            seen,
            own: CtProgress::default(),
            other: CtProgress::default(),
            open: true,
        };
        let now = 100_000_000_000;
        let other = BackendRef { generation: 4, ..OWNER };
        assert_eq!(gone(false).forgets(&of(PROTOCOL_UDP, OWNER, now), now), Some((OWNER, DestroyReason::GoneBackend)));
        assert_eq!(gone(false).forgets(&of(PROTOCOL_TCP, OWNER, now), now), None);
        assert_eq!(gone(true).forgets(&of(PROTOCOL_TCP, OWNER, now), now), Some((OWNER, DestroyReason::GoneBackend)));
        assert_eq!(gone(true).forgets(&of(PROTOCOL_TCP, other, now), now), None);
        let idle = SweepRequest {
            idle: [(OWNER, Idle { client: MINUTE, server: Duration::ZERO })].into(),
            ..SweepRequest::default()
        };
        assert_eq!(idle.forgets(&of(PROTOCOL_TCP, OWNER, now - 60_000_000_000), now), None);
        assert_eq!(
            idle.forgets(&of(PROTOCOL_TCP, OWNER, now - 60_000_000_001), now),
            Some((OWNER, DestroyReason::Idle))
        );
    }

    #[test]
    fn what_is_idle_for_longer_than_the_shorter_bound_ends() {
        let job = |client, server| SweepRequest {
            idle: [(OWNER, Idle { client, server })].into(),
            ..SweepRequest::default()
        };
        let idle = |seconds| Row { idle: Some(Duration::from_secs(seconds)), ..row(PROTOCOL_TCP) };
        let job_of_a_minute = job(MINUTE, 2 * MINUTE);
        assert_eq!(job_of_a_minute.should_destroy(&idle(60)), None);
        assert_eq!(job_of_a_minute.should_destroy(&idle(61)), Some((OWNER, DestroyReason::Idle)));
        assert_eq!(job(Duration::ZERO, MINUTE).should_destroy(&idle(61)), Some((OWNER, DestroyReason::Idle)));
        assert_eq!(job(Duration::ZERO, Duration::ZERO).should_destroy(&idle(1_000_000)), None);
        assert_eq!(job_of_a_minute.should_destroy(&row(PROTOCOL_TCP)), None, "the kernel does not say");
        let mut closed = idle(61);
        closed.socket.ring[0].counted = 0;
        assert_eq!(job_of_a_minute.should_destroy(&closed), None, "the program has closed it already");
        assert!(job_of_a_minute.looks_at(PROTOCOL_TCP) && !job_of_a_minute.looks_at(PROTOCOL_UDP));
    }
}
