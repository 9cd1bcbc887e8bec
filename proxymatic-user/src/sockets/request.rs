//! `SweepRequest` and `SweepReport`: what a sweep is to do, and what it did. Pure.

use std::{collections::BTreeMap, time::Duration};

use proxymatic_common::{Address, PROTOCOL_TCP, PROTOCOL_UDP, Port};

use super::{Listening, Row};
use crate::dataplane::{ListenerScope, kernel::CtConnection};

/// One owner of a backend id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BackendRef {
    /// The id of the backend.
    pub backend: u32,
    /// Its generation.
    pub generation: u32,
}

/// A backend whose task has ended, and whose connections a sweep destroys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoneBackend {
    /// The address it listened on.
    pub address: Address,
    /// The port it listened on.
    pub port: Port,
    /// Whether TCP connections are destroyed as well as UDP sockets.
    pub tcp: bool,
}

impl GoneBackend {
    const fn affects(&self, protocol: u8) -> bool {
        protocol == PROTOCOL_UDP || self.tcp
    }
}

/// How long the connections of a backend may be idle; zero is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// The timeout of the client's side.
    pub client: Duration,
    /// The timeout of the backend's side.
    pub server: Duration,
}

impl Idle {
    /// Returns how long a socket may be idle: the shorter timeout, as a socket is both sides; `None` for ever.
    pub fn bound(self) -> Option<Duration> {
        [self.client, self.server].into_iter().filter(|bound| !bound.is_zero()).min()
    }
}

/// What one sweep does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepRequest {
    /// Whether to count the translations of TCP sockets that count as open.
    pub census: bool,
    /// The namespaces in which to find the listeners.
    pub listeners: Option<ListenerScope>,
    /// Destroy the connections to these backends.
    pub gone: BTreeMap<BackendRef, GoneBackend>,
    /// Destroy the connections to these backends that are idle for too long.
    pub idle: BTreeMap<BackendRef, Idle>,
    /// Whether to remove expired connections of remote clients.
    pub remote: bool,
}

/// Why a connection was destroyed or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DestroyReason {
    /// The task of its backend has ended.
    GoneBackend,
    /// It was idle for too long.
    Idle,
}

/// How full the conntrack map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConntrackUsage {
    /// Connections that are open or were closed a short while ago.
    pub connections: u64,
    /// How many connections fit; beyond that the kernel evicts the least recently used.
    pub capacity: u64,
}

/// What a sweep found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Translations that count as open; `None` if the request has no census, or a namespace could not be visited.
    pub census: Option<BTreeMap<BackendRef, u64>>,
    /// The ports on which programs receive; `None` if the request does not ask for listeners, or a namespace could not
    /// be visited.
    pub listening: Option<Listening>,
    /// How many sockets were destroyed, by backend.
    pub ended: BTreeMap<(BackendRef, DestroyReason), u64>,
    /// How many connections of remote clients were removed before they expired, by backend.
    pub forgotten: BTreeMap<(BackendRef, DestroyReason), u64>,
    /// How full the conntrack map is; `None` if the sweep did not visit it.
    pub remote: Option<ConntrackUsage>,
    /// Why the sweep was incomplete, in one sentence with the remedy.
    pub limitation: Option<String>,
    /// How long the sweep took.
    pub took: Duration,
}

impl SweepRequest {
    /// Returns true if there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.listeners.is_none() && !self.visits_all_netns() && !self.remote
    }

    /// Returns true if the sweep has to visit the connections of remote clients.
    pub(super) fn visits_conntrack(&self) -> bool {
        self.remote || self.census || !self.gone.is_empty() || !self.idle.is_empty()
    }

    /// Returns true if the sweep has to visit more than the agent's own namespace.
    pub(super) fn visits_all_netns(&self) -> bool {
        let all = self.listeners == Some(ListenerScope::All);
        self.census || all || !self.gone.is_empty() || !self.idle.is_empty()
    }

    /// Returns true if the sweep has to list the sockets of a protocol (IPPROTO number).
    pub(super) fn visits_protocol(&self, protocol: u8) -> bool {
        (protocol == PROTOCOL_TCP && (self.census || !self.idle.is_empty()))
            || self.gone.values().any(|gone| gone.affects(protocol))
    }

    /// Returns the backend and the reason if a connection of a remote client is to be removed before it expires. A
    /// TCP client then gets a reset from this host; a UDP client gets another backend.
    pub(super) fn should_remove_entry(
        &self,
        connection: &CtConnection,
        now: u64,
    ) -> Option<(BackendRef, DestroyReason)> {
        let owner = BackendRef { backend: connection.entry.backend, generation: connection.entry.generation };
        if self.gone.get(&owner).is_some_and(|gone| gone.affects(connection.client.protocol)) {
            return Some((owner, DestroyReason::GoneBackend));
        }
        let bound = self.idle.get(&owner)?.bound()?;
        (connection.counts_as_open() && Duration::from_nanos(connection.idle(now)) > bound)
            .then_some((owner, DestroyReason::Idle))
    }

    /// Returns true if a socket is connected to the address of a gone backend, even if its program chose it.
    pub(super) fn may_destroy(&self, row: &Row) -> bool {
        let matches =
            |gone: &GoneBackend| (gone.address, gone.port) == (row.peer, row.peer_port) && gone.affects(row.protocol);
        row.connected && self.gone.values().any(matches)
    }

    /// Returns the backend and the reason if a socket is to be destroyed.
    ///
    /// Never destroys an unconnected socket, because its program would lose the port. Never destroys a socket whose
    /// peer is another address than the backend's.
    pub(super) fn should_destroy(&self, row: &Row) -> Option<(BackendRef, DestroyReason)> {
        let made = row.connection()?;
        let owner = BackendRef { backend: made.backend, generation: made.generation };
        if let Some(gone) = self.gone.get(&owner)
            && (gone.address, gone.port) == (row.peer, row.peer_port)
            && gone.affects(row.protocol)
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

    /// A socket that was and still is connected to backend 7 at 10.0.0.2:8001.
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
    fn gone_backend_ends_udp_and_tcp_only_on_request() {
        assert_eq!(gone(false).should_destroy(&row(PROTOCOL_UDP)), Some((OWNER, DestroyReason::GoneBackend)));
        assert_eq!(gone(false).should_destroy(&row(PROTOCOL_TCP)), None);
        assert_eq!(gone(true).should_destroy(&row(PROTOCOL_TCP)), Some((OWNER, DestroyReason::GoneBackend)));
        assert!(!gone(false).visits_protocol(PROTOCOL_TCP));
        assert!(gone(false).visits_protocol(PROTOCOL_UDP) && gone(true).visits_protocol(PROTOCOL_TCP));
    }

    #[test]
    fn unconnected_socket_is_never_destroyed() {
        let request = gone(true);
        let unconnected = Row { connected: false, peer: Address::ZERO, peer_port: Port::new(0), ..row(PROTOCOL_UDP) };
        assert_eq!(request.should_destroy(&unconnected), None);
        assert_eq!(
            request.should_destroy(&Row { connected: false, ..row(PROTOCOL_TCP) }),
            None,
            "not established yet, or closed"
        );
        // Not even if the backend is one of its destinations.
        let mut sent = unconnected.clone();
        sent.socket.ring = [row(PROTOCOL_UDP).socket.ring[0]; proxymatic_common::RING];
        assert_eq!(request.should_destroy(&sent), None);
    }

    #[test]
    fn socket_with_another_peer_is_never_destroyed() {
        let request = gone(true);
        for (peer, port) in [("10.0.0.3", 8001), ("10.0.0.2", 8002)] {
            let elsewhere = Row { peer: address(peer), peer_port: Port::new(port), ..row(PROTOCOL_UDP) };
            assert_eq!(request.should_destroy(&elsewhere), None, "{peer}:{port}");
        }
    }

    #[test]
    fn socket_of_another_generation_or_unknown_backend_stays() {
        let request = gone(true);
        for (backend, generation) in [(7, 4), (8, 3), (0, 0)] {
            let mut other = row(PROTOCOL_UDP);
            (other.socket.ring[0].backend, other.socket.ring[0].generation) = (backend, generation);
            assert_eq!(request.should_destroy(&other), None, "{backend} {generation}");
        }
        // The program itself connected to the same address later, without a translation.
        let mut direct = row(PROTOCOL_UDP);
        direct.socket.ring[0] = Translation::NONE;
        assert_eq!(request.should_destroy(&direct), None);
    }

    #[test]
    fn remote_connections_are_removed_for_the_same_reasons() {
        let of = |protocol, owner: BackendRef, seen| CtConnection {
            client: FiveTuple::new((Address::ZERO, Port::new(1)), (Address::ZERO, Port::new(2)), protocol),
            entry: CtEntry {
                translated: FiveTuple::new((Address::ZERO, Port::new(3)), (Address::ZERO, Port::new(4)), protocol),
                start: 0,
                last_seen: seen,
                state: 0,
                service: 1,
                backend: owner.backend,
                generation: owner.generation,
                flags: CtFlags::default(),
            },
            last_seen: seen,
            client_progress: CtProgress::default(),
            backend_progress: CtProgress::default(),
            open: true,
        };
        let now = 100_000_000_000;
        let other = BackendRef { generation: 4, ..OWNER };
        assert_eq!(
            gone(false).should_remove_entry(&of(PROTOCOL_UDP, OWNER, now), now),
            Some((OWNER, DestroyReason::GoneBackend))
        );
        assert_eq!(gone(false).should_remove_entry(&of(PROTOCOL_TCP, OWNER, now), now), None);
        assert_eq!(
            gone(true).should_remove_entry(&of(PROTOCOL_TCP, OWNER, now), now),
            Some((OWNER, DestroyReason::GoneBackend))
        );
        assert_eq!(gone(true).should_remove_entry(&of(PROTOCOL_TCP, other, now), now), None);
        let idle = SweepRequest {
            idle: [(OWNER, Idle { client: MINUTE, server: Duration::ZERO })].into(),
            ..SweepRequest::default()
        };
        assert_eq!(idle.should_remove_entry(&of(PROTOCOL_TCP, OWNER, now - 60_000_000_000), now), None);
        assert_eq!(
            idle.should_remove_entry(&of(PROTOCOL_TCP, OWNER, now - 60_000_000_001), now),
            Some((OWNER, DestroyReason::Idle))
        );
    }

    #[test]
    fn idle_socket_is_destroyed_after_the_shorter_timeout() {
        let request = |client, server| SweepRequest {
            idle: [(OWNER, Idle { client, server })].into(),
            ..SweepRequest::default()
        };
        let idle = |seconds| Row { idle: Some(Duration::from_secs(seconds)), ..row(PROTOCOL_TCP) };
        let request_of_a_minute = request(MINUTE, 2 * MINUTE);
        assert_eq!(request_of_a_minute.should_destroy(&idle(60)), None);
        assert_eq!(request_of_a_minute.should_destroy(&idle(61)), Some((OWNER, DestroyReason::Idle)));
        assert_eq!(request(Duration::ZERO, MINUTE).should_destroy(&idle(61)), Some((OWNER, DestroyReason::Idle)));
        assert_eq!(request(Duration::ZERO, Duration::ZERO).should_destroy(&idle(1_000_000)), None);
        assert_eq!(request_of_a_minute.should_destroy(&row(PROTOCOL_TCP)), None, "idle time unknown");
        let mut closed = idle(61);
        closed.socket.ring[0].counted = 0;
        assert_eq!(request_of_a_minute.should_destroy(&closed), None, "the program has closed the socket already");
        assert!(
            request_of_a_minute.visits_protocol(PROTOCOL_TCP) && !request_of_a_minute.visits_protocol(PROTOCOL_UDP)
        );
    }
}
