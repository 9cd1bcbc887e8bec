//! A client, this host and a backend of one family, and the start of a connection between them.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use etherparse::{SlicedPacket, TransportSlice};
use proxymatic_common::{FiveTuple, PROTOCOL_TCP, PROTOCOL_UDP, Port};

use super::packet_spec::{HERE, PacketSpec, link};
use super::test_netns::{Done, TestNetns};

/// The packet goes on through the host: TC_ACT_UNSPEC, after which foreign programs see it too.
pub(crate) const TC_NEXT: u32 = u32::MAX;
pub(crate) const TC_SHOT: u32 = 2;
pub(crate) const TC_REDIRECT: u32 = 7;

/// The three addresses as text.
pub(crate) struct Endpoints {
    pub(crate) client: &'static str,
    /// The service.
    pub(crate) host: &'static str,
    pub(crate) backend: &'static str,
}

pub(crate) const V4: Endpoints =
    Endpoints { client: "10.77.0.9:4000", host: "10.77.0.1:1234", backend: "10.77.0.2:8001" };
pub(crate) const V6: Endpoints =
    Endpoints { client: "[fd77::9]:4000", host: "[fd77::1]:1234", backend: "[fd77::2]:8001" };
pub(crate) const BOTH: [&Endpoints; 2] = [&V4, &V6];

impl Endpoints {
    /// This host as the backend sees it.
    pub(crate) fn snat(&self, port: u16) -> SocketAddr {
        SocketAddr::new(address(self.host).ip(), port)
    }

    /// A client's packet to the service.
    pub(crate) fn tcp(&self, flags: &'static str, sequence: u32, ack: u32) -> PacketSpec {
        PacketSpec::tcp(self.client, self.host, flags, sequence, ack)
    }

    /// The backend's reply to that port of this host.
    pub(crate) fn tcp_back(&self, snat: u16, flags: &'static str, sequence: u32, ack: u32) -> PacketSpec {
        let mut spec = PacketSpec::tcp(self.backend, self.host, flags, sequence, ack);
        spec.to.set_port(snat);
        spec
    }

    pub(crate) fn udp(&self) -> PacketSpec {
        PacketSpec::udp(self.client, self.host)
    }

    pub(crate) fn udp_back(&self, snat: u16) -> PacketSpec {
        let mut spec = PacketSpec::udp(self.backend, self.host);
        spec.to.set_port(snat);
        spec
    }

    /// The direction of a packet.
    pub(crate) fn key(&self, protocol: u8) -> FiveTuple {
        tuple(address(self.client), address(self.host), protocol)
    }

    /// Asserts that a packet of the client was forwarded; returns its source port.
    pub(crate) fn sends(&self, room: &TestNetns, program: &str, spec: &PacketSpec) -> Result<u16> {
        let done = room.run(program, &spec.arriving()?)?;
        let snat = source_port(&done.packet)?;
        let wanted = spec.sent_on(self.snat(snat), address(self.backend)).frame(link(2), HERE)?;
        equal(&done, if program == "xdp_ingress" { XDP_REDIRECT } else { TC_REDIRECT }, &wanted)?;
        Ok(snat)
    }

    /// Asserts that a packet of the backend was forwarded to the client.
    pub(crate) fn returns(&self, room: &TestNetns, program: &str, spec: &PacketSpec) -> Result<()> {
        let done = room.run(program, &spec.frame(HERE, link(2))?)?;
        let wanted = spec.sent_on(address(self.host), address(self.client)).frame(link(9), HERE)?;
        equal(&done, if program == "xdp_ingress" { XDP_REDIRECT } else { TC_REDIRECT }, &wanted)
    }

    /// Opens a TCP connection; returns its source port towards the backend.
    pub(crate) fn connect(&self, room: &TestNetns) -> Result<u16> {
        let snat = self.sends(room, "tc_ingress", &self.tcp("S", 10, 0))?;
        self.returns(room, "tc_ingress", &self.tcp_back(snat, "SA", 500, 11))?;
        ensure!(self.sends(room, "tc_ingress", &self.tcp("A", 11, 501))? == snat, "another port");
        Ok(snat)
    }

    /// Opens a UDP flow; returns its source port towards the backend.
    pub(crate) fn converse(&self, room: &TestNetns) -> Result<u16> {
        let snat = self.sends(room, "tc_ingress", &self.udp())?;
        self.returns(room, "tc_ingress", &self.udp_back(snat))?;
        Ok(snat)
    }
}

pub(crate) const XDP_DROP: u32 = 1;
pub(crate) const XDP_PASS: u32 = 2;
pub(crate) const XDP_REDIRECT: u32 = 4;

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

pub(crate) fn tuple(from: SocketAddr, to: SocketAddr, protocol: u8) -> FiveTuple {
    let end = |it: SocketAddr| (it.ip().into(), Port::new(it.port()));
    FiveTuple::new(end(from), end(to), protocol)
}

/// Asserts that a program returned this verdict and this packet.
pub(crate) fn equal(done: &Done, verdict: u32, packet: &[u8]) -> Result<()> {
    ensure!(done.verdict == verdict, "verdict {}, not {verdict}", done.verdict);
    ensure!(done.packet == packet, "{:02x?}\n{:02x?} was wanted", done.packet, packet);
    Ok(())
}

pub(crate) fn source_port(packet: &[u8]) -> Result<u16> {
    match SlicedPacket::from_ethernet(packet)?.transport.context("no transport")? {
        TransportSlice::Tcp(it) => Ok(it.source_port()),
        TransportSlice::Udp(it) => Ok(it.source_port()),
        other => anyhow::bail!("{other:?}"),
    }
}

/// The protocol numbers, each with an example.
pub(crate) fn of_each(ends: &Endpoints) -> [(u8, PacketSpec); 2] {
    [(PROTOCOL_TCP, ends.tcp("S", 10, 0)), (PROTOCOL_UDP, ends.udp())]
}
