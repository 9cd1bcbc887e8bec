//! One kind of socket to one kind of service, and its expected outcome.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proxymatic_tests::lab::kernel;
use proxymatic_tests::net::{host_address, host_address6};

use crate::fixtures::word_replicas::{At, WordService};

/// Services with replicas of either family, on another host only or also on the host itself.
pub(super) const SERVICES: [WordService; 4] = [
    WordService { app: "/far4", port: 1001, replicas: &[(At::V4(2, 8001), "far")] },
    WordService { app: "/far6", port: 1002, replicas: &[(At::V6(2, 8002), "far")] },
    WordService { app: "/near4", port: 1003, replicas: &[(At::V4(1, 8003), "near"), (At::V4(2, 8003), "far")] },
    WordService { app: "/near6", port: 1004, replicas: &[(At::V6(1, 8004), "near"), (At::V6(2, 8004), "far")] },
];

/// `--loopback` of the agent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Loopback {
    Host,
    All,
}

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Caller {
    Host,
    Container,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Tcp,
    UdpConnected,
    UdpUnconnected,
}

/// The address that the socket is bound to; the kernel picks the port.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    Nothing,
    Any,
    Own,
    Loopback,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) caller: Caller,
    kind: Kind,
    to: SocketAddr,
    bound: Bound,
    nonblocking: bool,
    loopback: Loopback,
}

/// The expected outcome.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Expected {
    /// A replica answers: the one on this host if the socket can reach no other.
    Served { near: bool },
    /// No replica has a family that the socket reaches.
    NoFamily,
    /// The socket is bound to loopback, from which no replica is reachable.
    Bound,
    /// The address is not served: the port is closed.
    Closed,
}

impl Loopback {
    pub(super) fn flag(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::All => "all",
        }
    }
}

impl Expected {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Served { .. } => "served",
            Self::NoFamily => "no family",
            Self::Bound => "bound",
            Self::Closed => "closed",
        }
    }
}

/// The whole table.
pub(super) fn all(loopback: Loopback) -> Vec<Row> {
    let mut rows = Vec::new();
    for caller in [Caller::Host, Caller::Container] {
        for kind in [Kind::Tcp, Kind::UdpConnected, Kind::UdpUnconnected] {
            for to in destinations() {
                for service in SERVICES {
                    for bound in [Bound::Nothing, Bound::Any, Bound::Own, Bound::Loopback] {
                        for nonblocking in [false, true] {
                            let to = SocketAddr::new(to, service.port);
                            rows.push(Row { caller, kind, to, bound, nonblocking, loopback });
                        }
                    }
                }
            }
        }
    }
    rows
}

/// Addresses of each family, and those of IPv4 in their v4-mapped form, for which the socket is one of IPv6.
fn destinations() -> [IpAddr; 9] {
    let (own4, own6) = (host_address(1), host_address6(1));
    let v4 = [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED, own4];
    let mapped = v4.map(|address| IpAddr::V6(address.to_ipv6_mapped()));
    let v6 = [Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED, own6].map(IpAddr::V6);
    let [a, b, c] = v4.map(IpAddr::V4);
    [a, b, c, mapped[0], mapped[1], mapped[2], v6[0], v6[1], v6[2]]
}

impl Row {
    /// The command for `connect-variants`.
    pub(super) fn order(&self) -> String {
        let kind = match self.kind {
            Kind::Tcp => "tcp",
            Kind::UdpConnected => "udp",
            Kind::UdpUnconnected => "udp-unconnected",
        };
        let bind = self.bind().map_or_else(String::new, |address| format!(" bind {address}"));
        format!("try {kind} {}{bind}{}", self.to, if self.nonblocking { " nonblocking" } else { "" })
    }

    pub(super) fn is_own_loopback_of_a_container(&self) -> bool {
        self.caller == Caller::Container && self.dials_loopback()
    }

    pub(super) fn expected(&self) -> Expected {
        if self.is_own_loopback_of_a_container() && self.loopback == Loopback::Host {
            return Expected::Closed;
        }
        let service = SERVICES.iter().find(|service| service.port == self.to.port());
        let replicas = service.map_or(&[][..], |service| service.replicas);
        let fits = |at: &At| if at.address().is_ipv4() { self.reaches_v4() } else { self.reaches_v6() };
        if self.bound == Bound::Loopback {
            // From a loopback address no other host is reachable; from a container's, the host is not reachable either.
            let here = |at: &At| matches!(at, At::V4(1, _) | At::V6(1, _)) && self.caller == Caller::Host;
            let near = replicas.iter().any(|(at, _)| fits(at) && here(at));
            return if near { Expected::Served { near } } else { Expected::Bound };
        }
        let any = replicas.iter().any(|(at, _)| fits(at));
        if any { Expected::Served { near: false } } else { Expected::NoFamily }
    }

    /// Describes the expected outcome.
    pub(super) fn wanted(&self) -> String {
        match self.expected() {
            Expected::Served { near } => format!("{} {}", if near { "near" } else { "any" }, self.seen()),
            other => format!("{} ({other:?})", self.refusal(other)),
        }
    }

    /// Whether this is the expected outcome.
    pub(super) fn is_right(&self, said: &str) -> bool {
        match self.expected() {
            Expected::Served { near } => match said.split_once(' ') {
                Some((word, seen)) => (word == "near" || word == "far" && !near) && seen == self.seen(),
                None => false,
            },
            other => said == self.refusal(other),
        }
    }

    /// The peer and the senders: the destination, or the loopback address that Linux makes of an unspecified one.
    fn seen(&self) -> String {
        let meant = match self.to.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
            to if to.to_canonical() == Ipv4Addr::UNSPECIFIED => Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(),
            to => to,
        };
        let destination = SocketAddr::new(meant, self.to.port());
        match self.kind {
            Kind::Tcp => format!("{destination} - -"),
            Kind::UdpConnected => format!("{destination} {destination} {destination}"),
            Kind::UdpUnconnected => format!("- {destination} {destination}"),
        }
    }

    /// Refused by the hook in the call that names the address, if the kernel can do that; by a closed port, UDP gets
    /// the error in the next call.
    fn refusal(&self, expected: Expected) -> &'static str {
        match (self.kind, expected) {
            (Kind::UdpConnected | Kind::UdpUnconnected, Expected::Closed) => "receive ECONNREFUSED",
            (Kind::UdpConnected, _) => kernel::refused_connect(),
            (Kind::UdpUnconnected, _) => kernel::refused_datagram(),
            _ => "connect ECONNREFUSED",
        }
    }

    fn bind(&self) -> Option<IpAddr> {
        let number = match self.caller {
            Caller::Host => 1,
            Caller::Container => 3,
        };
        let (v4, v6) = match self.bound {
            Bound::Nothing => return None,
            Bound::Any => (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED),
            Bound::Own => (host_address(number), host_address6(number)),
            Bound::Loopback => (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST),
        };
        Some(match self.to.ip() {
            IpAddr::V4(_) => v4.into(),
            // A socket bound to :: still has both families.
            IpAddr::V6(to) if to.to_ipv4_mapped().is_some() && self.bound != Bound::Any => v4.to_ipv6_mapped().into(),
            IpAddr::V6(_) => v6.into(),
        })
    }

    fn dials_loopback(&self) -> bool {
        self.to.ip().to_canonical().is_loopback() || self.to.ip().to_canonical().is_unspecified()
    }

    /// Whether the socket uses IPv4 for this destination; an IPv6 datagram cannot be turned into an IPv4 one.
    fn reaches_v4(&self) -> bool {
        let dials_v4 = self.to.ip().to_canonical().is_ipv4();
        let bound_v6 = matches!(self.bound, Bound::Own | Bound::Loopback) && !dials_v4;
        dials_v4 || (!bound_v6 && self.kind != Kind::UdpUnconnected)
    }

    /// Whether the socket uses IPv6 for this destination; an IPv4 socket never does.
    fn reaches_v6(&self) -> bool {
        let dials_v4 = self.to.ip().to_canonical().is_ipv4();
        let bound_v4 = matches!(self.bound, Bound::Own | Bound::Loopback) && dials_v4;
        self.to.is_ipv6() && !bound_v4 && (!dials_v4 || self.kind != Kind::UdpUnconnected)
    }
}
