//! What the kernel remembers of one socket, for as long as it lives.

use crate::{Address, Port, assert_packed, bit_set, plain_bytes};

/// One translation that a socket made.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// What the program dialled.
    pub destination: Address,
    /// Where it was sent.
    pub backend_address: Address,
    /// The port the program dialled.
    pub destination_port: Port,
    /// The port it was sent to.
    pub backend_port: Port,
    /// The id of the backend.
    pub backend: u32,
    /// The backend's generation.
    pub generation: u32,
    /// 1 while it counts as open, else 0.
    pub counted: u32,
}
assert_packed!(Translation = Address, Address, Port, Port, u32, u32, u32);

impl Translation {
    /// All zero: none.
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

/// How many translations a socket remembers: the one of connect(2), and those of the last datagrams it sent unconnected.
pub const RING: usize = if cfg!(feature = "next-abi") { 4 } else { 8 };

/// What has happened to a socket: a set of bits.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketFlags(pub u32);

impl SocketFlags {
    /// The program has closed it.
    pub const CLOSING: Self = Self(1);
    /// It has sent datagrams without a connection: not only the first of its ring is in use.
    pub const SENT: Self = Self(1 << 1);
}

/// The value of `SOCKETS`. The kernel makes it zeroed, which is a socket that translated nothing.
///
/// `ring[0]` is what connect(2) made; the others are of datagrams sent without a connection, `newest` the last of them
/// that was used.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// When it last was translated anew: nanoseconds of the monotonic clock.
    pub start: u64,
    /// Which of the ring was used last.
    pub newest: u32,
    /// What has happened to it.
    pub flags: SocketFlags,
    /// Where to.
    pub ring: [Translation; RING],
}
assert_packed!(Socket = u64, u32, SocketFlags, [Translation; RING]);

impl Socket {
    /// A socket that translated nothing, as the kernel makes it.
    pub const NEW: Self = Self { start: 0, newest: 0, flags: SocketFlags(0), ring: [Translation::NONE; RING] };
}

bit_set!(SocketFlags);
plain_bytes!(Translation, SocketFlags, Socket);
