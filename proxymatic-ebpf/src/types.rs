//! Flows, verdicts and listeners: the types that several decisions share.

use proxymatic_common::{Address, Families, Port, Reason};

/// A connection or datagram to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The destination address. Never an unspecified one: see [`Flow::new`].
    pub address: Address,
    /// The destination port.
    pub port: Port,
    /// IPPROTO number.
    pub protocol: u8,
    /// The address families that the socket can reach if it is not bound.
    pub families: Families,
}

impl Flow {
    /// Makes a flow. Linux sends 0.0.0.0 and :: to loopback, so a flow has the loopback address instead.
    #[inline(always)]
    pub const fn new(address: Address, port: Port, protocol: u8, families: Families) -> Self {
        Self { address: address.effective(), port, protocol, families }
    }
}

/// A copy of the backend that was selected: its id may get a new owner meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The id of the service.
    pub service: u32,
    /// The id of the backend.
    pub backend: u32,
    /// The generation of the backend.
    pub generation: u32,
    /// The address that the backend listens on.
    pub address: Address,
    /// The port that the backend listens on.
    pub port: Port,
    /// Whether the backend is on this host.
    pub local: bool,
    /// TCP_SYNCNT for the connection; 0 keeps the system's value.
    pub syn_retries: u32,
    /// The reason that is counted for the selection.
    pub reason: Reason,
}

/// What the hook must do with a flow.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No service: leave it alone, without counting.
    Pass,
    /// A service, but leave the flow alone and count the reason.
    Leave(Reason),
    /// Send it to the backend.
    Translate(Choice),
    /// Refuse it, and count the reason for the service with this id.
    Refuse(u32, Reason),
}

/// The listener on a port in a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// No socket listens.
    None,
    /// The socket is bound to a loopback address.
    Loopback,
    /// The socket is bound to another address, or to all.
    Other,
}

/// Whether an allow list has an address of a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum NetnsMatch {
    /// The addresses of the namespace are unknown.
    Unknown,
    /// No network of the list contains an address of the namespace.
    Unlisted,
    /// A network of the list contains an address of the namespace.
    Listed,
}

/// The backend of a socket's earlier datagrams to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CachedBackend {
    /// The address that the backend listens on.
    pub address: Address,
    /// The port that the backend listens on.
    pub port: Port,
    /// Whether a local socket may have the destination port by now.
    pub may_have_listener: bool,
}

/// Returns the source address of a packet from a socket to an address of its own host. The kernel chooses the address
/// if the socket is bound to none.
#[inline(always)]
pub const fn source_towards(bound: Address, to: &Address) -> Address {
    if !bound.is_unspecified() {
        bound
    } else if to.is_v4() && to.is_loopback() {
        Address::from_v4_word(0x7f00_0001_u32.to_be())
    } else {
        *to
    }
}

/// Where the destination address of a flow is, seen from the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Locality {
    /// In the socket's network namespace, so a listener may be there.
    SameNetns,
    /// An address of the host, but the socket is in another network namespace: a listener of the host may be there.
    Host,
    /// A virtual address, on which no program listens.
    Virtual,
}
