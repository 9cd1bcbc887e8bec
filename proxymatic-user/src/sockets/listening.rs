//! `Listening`: the ports of a host on which a program receives, as a sweep found them. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::RangeInclusive,
};

use proxymatic_common::{Address, ListenerFlags, ListenerKey, PROTOCOL_UDP, Port};

/// The ports on which programs receive, in all namespaces of a sweep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listening {
    /// IPPROTO number and port of every TCP listener and every UDP socket.
    pub ports: BTreeSet<(u8, Port)>,
    /// The listeners in the host's namespace, with the interfaces of each.
    pub of_host: BTreeMap<ListenerKey, ListenerFlags>,
    /// The ports that the kernel gives to UDP sockets that ask for none, without a hook that sees it.
    pub autobind: AutobindPorts,
}

impl Listening {
    /// Returns whether a program may receive on a port now or at any time before the next sweep.
    pub fn may_receive(&self, protocol: u8, port: Port) -> bool {
        self.ports.contains(&(protocol, port)) || (protocol == PROTOCOL_UDP && self.autobind.contains(port.get()))
    }

    /// Adds a socket of the host's namespace.
    pub(super) fn add_of_host(&mut self, socket: &ListeningSocket) {
        self.ports.insert((socket.protocol, socket.port));
        // A connected socket receives from its peer only, which is not what a service port is for.
        if socket.connected {
            return;
        }
        let mut add = |address| {
            let key = ListenerKey::new(address, socket.port, socket.protocol);
            let flags = self.of_host.entry(key).or_default();
            *flags = flags.with(ListenerFlags::of_interface(socket.ifindex));
        };
        add(socket.address);
        if socket.address == Address::ZERO && !socket.v6_only {
            add(Address::from_v4_word(0));
        }
    }
}

/// A socket that other programs can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListeningSocket {
    pub(super) protocol: u8,
    /// The address that it is bound to; an unspecified one for all of its family.
    pub(super) address: Address,
    pub(super) port: Port,
    /// The index of the interface that it is bound to; 0 for none.
    pub(super) ifindex: u32,
    /// Whether it is a connected UDP socket.
    pub(super) connected: bool,
    /// Whether it is an IPv6 socket that receives no IPv4.
    pub(super) v6_only: bool,
}

/// Ports that the kernel gives to sockets that ask for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutobindPorts {
    range: RangeInclusive<u16>,
    /// The ports of the range that the kernel does not give.
    reserved: Vec<RangeInclusive<u16>>,
}

impl Default for AutobindPorts {
    /// No ports.
    fn default() -> Self {
        Self { range: RangeInclusive::new(1, 0), reserved: Vec::new() }
    }
}

impl AutobindPorts {
    /// Reads the ports of this thread's network namespace.
    pub(super) fn read() -> Self {
        let read = |name| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
        Self::parse(&read("ip_local_port_range"), &read("ip_local_reserved_ports"))
    }

    fn parse(range: &str, reserved: &str) -> Self {
        let mut ends = range.split_whitespace().map(str::parse);
        let (Some(Ok(first)), Some(Ok(last))) = (ends.next(), ends.next()) else { return Self::default() };
        let part = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
        };
        Self { range: first..=last, reserved: reserved.split(',').filter_map(part).collect() }
    }

    fn contains(&self, port: u16) -> bool {
        self.range.contains(&port) && !self.reserved.iter().any(|reserved| reserved.contains(&port))
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proxymatic_common::PROTOCOL_TCP;

    use super::*;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn socket(at: &str) -> ListeningSocket {
        ListeningSocket {
            protocol: PROTOCOL_UDP,
            address: address(at),
            port: Port::new(53),
            ifindex: 0,
            connected: false,
            v6_only: false,
        }
    }

    fn found(sockets: &[ListeningSocket]) -> Vec<(IpAddr, ListenerFlags)> {
        let mut listening = Listening::default();
        sockets.iter().for_each(|socket| listening.add_of_host(socket));
        assert!(
            listening.may_receive(PROTOCOL_UDP, Port::new(53)) && !listening.may_receive(PROTOCOL_TCP, Port::new(53))
        );
        listening.of_host.into_iter().map(|(key, flags)| (key.address.into(), flags)).collect()
    }

    fn at(text: &str, flags: ListenerFlags) -> (IpAddr, ListenerFlags) {
        (text.parse().unwrap(), flags)
    }

    #[test]
    fn listeners_are_listed_by_address_with_their_interfaces() {
        use ListenerFlags as Flags;
        assert_eq!(found(&[socket("10.0.0.1")]), [at("10.0.0.1", Flags::ANY_INTERFACE)]);
        let stub = ListeningSocket { ifindex: 1, ..socket("127.0.0.53") };
        assert_eq!(found(&[stub]), [at("127.0.0.53", Flags::ON_LOOPBACK)]);
        let (on_lo, on_eth) = (ListeningSocket { ifindex: 1, ..socket("0.0.0.0") }, socket("0.0.0.0"));
        assert_eq!(found(&[on_lo, on_eth]), [at("0.0.0.0", Flags::ON_LOOPBACK.with(Flags::ANY_INTERFACE))]);
    }

    #[test]
    fn ipv6_wildcard_receives_ipv4_unless_v6_only() {
        let other = ListenerFlags::ANY_INTERFACE;
        assert_eq!(found(&[socket("::")]), [at("::", other), at("0.0.0.0", other)]);
        assert_eq!(found(&[ListeningSocket { v6_only: true, ..socket("::") }]), [at("::", other)]);
    }

    #[test]
    fn connected_socket_has_its_port_but_is_no_listener() {
        assert_eq!(found(&[ListeningSocket { connected: true, ..socket("10.0.0.1") }]), []);
    }

    #[test]
    fn udp_port_that_the_kernel_gives_may_receive_at_any_time() {
        let autobind = AutobindPorts::parse("32768\t60999\n", "40000-40002,50000\n");
        let listening = Listening { autobind, ..Listening::default() };
        for (port, may) in
            [(32_767, false), (32_768, true), (40_001, false), (40_003, true), (50_000, false), (61_000, false)]
        {
            assert_eq!(listening.may_receive(PROTOCOL_UDP, Port::new(port)), may, "{port}");
            assert!(!listening.may_receive(PROTOCOL_TCP, Port::new(port)), "a connection is no listener: {port}");
        }
        for broken in ["", "1", "a b"] {
            assert_eq!(AutobindPorts::parse(broken, ""), AutobindPorts::default(), "{broken:?}");
        }
    }
}
