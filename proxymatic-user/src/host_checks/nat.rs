//! NAT rules of nftables, and of iptables on nftables, that take service ports. A port that only such a rule serves has no
//! listener, so the hooks cannot see that it is taken. Reads rules by netlink, and changes none.

use std::{collections::BTreeSet, fs, io, ops::RangeInclusive, os::fd::AsFd as _, path::Path};

use netlink_packet_core::{NLA_TYPE_MASK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sys::{
    socket::{setsockopt, sockopt},
    time::TimeVal,
};
use proxymatic_common::{PROTOCOL_TCP, PROTOCOL_UDP};

use super::PortSet;

/// Larger than any datagram of a dump.
const BUFFER: usize = 1 << 16;
/// The kernel answers at once, so a later answer is a fault.
const TIMEOUT_S: i64 = 5;
/// The look ends after this many rules, so that a host with very many pays a bounded time.
const MOST_RULES: usize = 100_000;
/// The length of `struct nfgenmsg`.
const FAMILY_HEADER: usize = 4;
/// NFNL_SUBSYS_NFTABLES and NFT_MSG_GETRULE.
const GET_RULE: u16 = 10 << 8 | 7;

/// A destination port that a NAT rule takes, with the protocol if the rule names one.
type Taken = (Option<u8>, RangeInclusive<u16>);

/// Returns a warning about service ports that NAT rules of this network namespace take; `None` if there are none, or if the
/// rules cannot be read.
pub(super) fn warning(services: &PortSet) -> Option<String> {
    if !has_nftables() {
        return None;
    }
    match rules() {
        Ok(taken) => describe(&taken, services),
        Err(error) => {
            tracing::debug!("cannot read the rules of nftables: {error}");
            None
        }
    }
}

/// Returns whether nf_tables is loaded. If it is not, there are no rules, and a request for them would load it.
fn has_nftables() -> bool {
    let modules = fs::read_to_string("/proc/modules").unwrap_or_default();
    modules.is_empty() || modules.contains("nf_tables ") || Path::new("/sys/module/nf_tables").exists()
}

fn describe(taken: &[Taken], services: &PortSet) -> Option<String> {
    let mut ports = BTreeSet::new();
    for (protocol, range) in taken {
        let on_services = PortSet::from_iter(range.clone()).intersection(services);
        let name = match *protocol {
            Some(PROTOCOL_TCP) => "/tcp",
            Some(PROTOCOL_UDP) => "/udp",
            _ => "",
        };
        ports.extend(on_services.iter().map(|port| format!("{port}{name}")));
    }
    (!ports.is_empty()).then(|| {
        let ports = ports.into_iter().collect::<Vec<_>>().join(", ");
        format!(
            "NAT rules of this host take service ports {ports}: connections to them go to the service, because the hooks \
             decide before the rules, and no listener shows that the ports are taken; remove the rules (nft list ruleset, \
             iptables-save), or keep services off these ports with --service-ports"
        )
    })
}

/// Reads the destination ports that the NAT rules of this network namespace take.
fn rules() -> io::Result<Vec<Taken>> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    setsockopt(&socket.as_fd(), sockopt::ReceiveTimeout, &TimeVal::new(TIMEOUT_S, 0))?;
    socket.send(&request(), 0)?;
    let (mut taken, mut count) = (Vec::new(), 0);
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        buffer.clear();
        let length = socket.recv(&mut buffer, 0)?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Some((message, after)) = next_message(rest) {
            match message.message_type() {
                NLMSG_DONE => return Ok(taken),
                NLMSG_ERROR => return Err(io::Error::other("the kernel refuses to list them")),
                _ => taken.extend(taken_by(message.payload().get(FAMILY_HEADER..).unwrap_or_default())),
            }
            count += 1;
            rest = after;
        }
        if count >= MOST_RULES {
            return Ok(taken);
        }
    }
}

/// Returns the request for the rules of all families: an empty `struct nfgenmsg`.
fn request() -> [u8; 16 + FAMILY_HEADER] {
    let mut bytes = [0; 16 + FAMILY_HEADER];
    let mut message = NetlinkBuffer::new(&mut bytes);
    message.set_length((16 + FAMILY_HEADER) as u32);
    message.set_message_type(GET_RULE);
    message.set_flags(NLM_F_REQUEST | NLM_F_DUMP);
    bytes
}

/// Returns the first message and what follows it.
fn next_message(bytes: &[u8]) -> Option<(NetlinkBuffer<&[u8]>, &[u8])> {
    let message = NetlinkBuffer::new_checked(bytes).ok()?;
    let length = message.length() as usize;
    Some((message, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// Returns the ports that a rule takes, from its attributes; none if it is no NAT rule, or names no port.
fn taken_by(rule: &[u8]) -> Vec<Taken> {
    /// From linux/netfilter/nf_tables.h.
    const NFTA_RULE_EXPRESSIONS: u16 = 4;
    const NFTA_EXPR_NAME: u16 = 1;
    const NFTA_EXPR_DATA: u16 = 2;
    let mut seen = Seen::default();
    let Some(expressions) = value(rule, NFTA_RULE_EXPRESSIONS) else { return Vec::new() };
    for expression in attributes(expressions) {
        let (name, data) = (value(expression.1, NFTA_EXPR_NAME), value(expression.1, NFTA_EXPR_DATA));
        seen.expression(text(name.unwrap_or_default()), data.unwrap_or_default());
    }
    let Seen { protocol, ports, nat, .. } = seen;
    if nat { ports.into_iter().map(|range| (protocol, range)).collect() } else { Vec::new() }
}

/// What the expression before loaded into a register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Loaded {
    #[default]
    Other,
    Protocol,
    DestinationPort,
}

/// What the expressions of a rule have said so far.
#[derive(Debug, Default)]
struct Seen {
    loaded: Loaded,
    protocol: Option<u8>,
    ports: Vec<RangeInclusive<u16>>,
    /// The start of a range whose end has not come yet.
    from: Option<u16>,
    nat: bool,
}

impl Seen {
    /// The numbers are those of linux/netfilter/nf_tables.h.
    fn expression(&mut self, name: &str, data: &[u8]) {
        match name {
            "meta" => {
                const L4PROTO: u32 = 16;
                self.loaded = if number(data, 2) == Some(L4PROTO) { Loaded::Protocol } else { Loaded::Other };
            }
            "payload" => {
                let part = [number(data, 2), number(data, 3), number(data, 4)];
                self.loaded = match part {
                    [Some(2), Some(2), Some(2)] => Loaded::DestinationPort,
                    // The protocol in an IPv4 header.
                    [Some(1), Some(9), Some(1)] => Loaded::Protocol,
                    _ => Loaded::Other,
                };
            }
            "cmp" => {
                let operand = value(data, 3).and_then(|nested| value(nested, 1)).unwrap_or_default();
                self.compare(number(data, 2).unwrap_or_default(), operand);
            }
            "range" => {
                let end = |attribute| port(value(value(data, attribute)?, 1)?);
                if self.loaded == Loaded::DestinationPort
                    && number(data, 2) == Some(0)
                    && let (Some(first), Some(last)) = (end(3), end(4))
                {
                    self.ports.push(first..=last);
                }
            }
            "match" => self.xtables_match(text(value(data, 1).unwrap_or_default()), value(data, 3).unwrap_or_default()),
            "nat" => self.nat |= number(data, 1) == Some(1),
            "redir" => self.nat = true,
            "target" => self.nat |= matches!(text(value(data, 1).unwrap_or_default()), "DNAT" | "REDIRECT"),
            _ => {}
        }
    }

    fn compare(&mut self, operator: u32, operand: &[u8]) {
        const EQUAL: u32 = 0;
        const AT_MOST: u32 = 3;
        const AT_LEAST: u32 = 5;
        match (self.loaded, operator) {
            (Loaded::Protocol, EQUAL) => self.protocol = operand.first().copied(),
            (Loaded::DestinationPort, EQUAL) => self.ports.extend(port(operand).map(|port| port..=port)),
            (Loaded::DestinationPort, AT_LEAST) => self.from = port(operand),
            (Loaded::DestinationPort, AT_MOST) => {
                if let (Some(first), Some(last)) = (self.from.take(), port(operand)) {
                    self.ports.push(first..=last);
                }
            }
            _ => {}
        }
    }

    /// A match of iptables, whose ports are in the order of the host.
    fn xtables_match(&mut self, name: &str, info: &[u8]) {
        let port_at = |at: usize| Some(u16::from_ne_bytes(*info.get(at..)?.first_chunk()?));
        match name {
            // struct xt_tcp and struct xt_udp: source ports, then destination ports.
            "tcp" | "udp" => {
                if let (Some(first), Some(last)) = (port_at(4), port_at(6))
                    && (first, last) != (0, u16::MAX)
                {
                    self.ports.push(first..=last);
                }
            }
            // struct xt_multiport_v1: flags, count, 15 ports, and whether each begins a range.
            "multiport" => {
                const SOURCE: u8 = 0;
                let [flags, count, ..] = *info else { return };
                let mut at = 0;
                while flags != SOURCE && at < usize::from(count.min(15)) {
                    let Some(first) = port_at(2 + 2 * at) else { return };
                    let is_range = info.get(32 + at).is_some_and(|flag| *flag != 0);
                    at += usize::from(is_range);
                    let Some(last) = port_at(2 + 2 * at) else { return };
                    self.ports.push(first..=last);
                    at += 1;
                }
            }
            _ => {}
        }
    }
}

/// Returns the attributes in some bytes, each with its value.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// The length of an attribute's header: its length and its kind, each two bytes.
    const HEADER: usize = 4;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let [l0, l1, k0, k1, ..] = *rest else { return None };
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & NLA_TYPE_MASK, value))
    })
}

fn value(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// Returns a number, which nftables writes in network order.
fn number(bytes: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(value(bytes, kind)?.try_into().ok()?))
}

fn port(operand: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(operand.try_into().ok()?))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default().trim_end_matches('\0')
}

#[cfg(test)]
mod tests;
