//! The kernel's record of one socket, for the lifetime of the socket.

use crate::{Address, Port, assert_packed, bit_set, plain_bytes};

/// One translation that a socket made.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The address to which the program connected.
    pub destination: Address,
    /// The address of the backend.
    pub backend_address: Address,
    /// The port to which the program connected.
    pub destination_port: Port,
    /// The port of the backend.
    pub backend_port: Port,
    /// The id of the backend.
    pub backend: u32,
    /// The backend's generation.
    pub generation: u32,
    /// 1 while the connection counts as open, else 0.
    pub counted: u32,
}
assert_packed!(Translation = Address, Address, Port, Port, u32, u32, u32);

impl Translation {
    /// No translation: all zero.
    pub const NONE: Self = Self {
        destination: Address::ZERO,
        backend_address: Address::ZERO,
        destination_port: Port::new(0),
        backend_port: Port::new(0),
        backend: 0,
        generation: 0,
        counted: 0,
    };
}

/// The number of translations in a socket's record: one for connect(2), and one each for the last unconnected
/// datagrams.
pub const RING: usize = if cfg!(feature = "next-abi") { 4 } else { 8 };

/// What happened to a socket: a set of bits.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketFlags(pub u32);

impl SocketFlags {
    /// The program closed the socket.
    pub const CLOSING: Self = Self(1);
    /// The socket sent datagrams without a connection, so not only `ring[0]` is in use.
    pub const SENT: Self = Self(1 << 1);
    /// The program bound the socket to a service port of the host.
    pub const BOUND: Self = Self(1 << 2);
}

/// The value of `SOCKETS`. The kernel creates it zeroed, which means a socket without translations.
///
/// `ring[0]` belongs to connect(2). The others belong to datagrams sent without a connection; `newest` is the index of
/// the last one used.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// The time of the last new translation: nanoseconds of the monotonic clock.
    pub start: u64,
    /// The index in `ring` of the translation used last.
    pub newest: u32,
    /// What happened to the socket.
    pub flags: SocketFlags,
    /// The address that the program bound the socket to, if [`SocketFlags::BOUND`] is set.
    pub bound_address: Address,
    /// The service port that the program bound the socket to.
    pub bound_port: Port,
    /// IPPROTO number of the bound socket.
    pub bound_protocol: u8,
    /// Always zero.
    pub _pad: [u8; 5],
    /// The translations.
    pub ring: [Translation; RING],
}
assert_packed!(Socket = u64, u32, SocketFlags, Address, Port, u8, [u8; 5], [Translation; RING]);

impl Socket {
    /// A socket without translations, as the kernel creates it.
    pub const NEW: Self = Self {
        start: 0,
        newest: 0,
        flags: SocketFlags(0),
        bound_address: Address::ZERO,
        bound_port: Port::new(0),
        bound_protocol: 0,
        _pad: [0; 5],
        ring: [Translation::NONE; RING],
    };
}

bit_set!(SocketFlags);
plain_bytes!(Translation, SocketFlags, Socket);
