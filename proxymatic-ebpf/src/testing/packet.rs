//! A packet in memory, at interface 1.

use std::{cell::Cell, vec::Vec};

use proxymatic_common::{Address, FiveTuple, Port};

use crate::{
    data_plane::PacketHook,
    packet::{ChecksumDelta, ChecksumKind, IcmpError, IpHeader, Packet},
    packet_ctx::Route,
    types::Listener,
};

/// A packet at interface 1, by which every route goes.
pub(crate) struct FakePacket {
    pub(crate) bytes: Vec<u8>,
    pub(crate) route: Route,
    pub(crate) listener: Listener,
    /// The ICMP error that the packet became.
    pub(crate) replied: Option<IcmpError>,
    /// How many route lookups there were.
    pub(crate) fib_lookups: Cell<u32>,
}

impl FakePacket {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, route: Route::Via(1), listener: Listener::None, replied: None, fib_lookups: Cell::new(0) }
    }
}

impl Packet for FakePacket {
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        self.bytes.get(at as usize..at as usize + N)?.try_into().ok()
    }
    fn store<const N: usize>(&mut self, at: u32, new: [u8; N]) -> Option<()> {
        self.bytes.get_mut(at as usize..at as usize + N)?.copy_from_slice(&new);
        Some(())
    }
    fn store_without_checksum<const N: usize>(&mut self, at: u32, new: [u8; N]) -> Option<()> {
        self.store(at, new)
    }
    fn fix_ip_csum(&mut self, at: u32, change: ChecksumDelta) -> Option<()> {
        let before = u16::from_ne_bytes(self.load::<2>(at)?);
        self.store(at, change.applied(before).to_ne_bytes())
    }
    fn fix_l4_csum(&mut self, at: u32, change: ChecksumDelta, sum: ChecksumKind) -> Option<()> {
        let before = u16::from_ne_bytes(self.load::<2>(at)?);
        let after = change.applied(before);
        self.store(at, (if sum.udp && after == 0 { 0xffff } else { after }).to_ne_bytes())
    }
}

impl PacketHook for FakePacket {
    fn fib_lookup(&mut self, _: &IpHeader, _: &FiveTuple) -> Route {
        self.fib_lookups.set(self.fib_lookups.get() + 1);
        self.route
    }
    fn reply_icmp(&mut self, _: &IpHeader, error: IcmpError) -> bool {
        self.replied = Some(error);
        true
    }
    fn listener(&self, _: (Address, Port), _: (&Address, Port), _: u8) -> Listener {
        self.listener
    }
}
