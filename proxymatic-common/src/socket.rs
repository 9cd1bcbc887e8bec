//! What the kernel remembers of one socket, for as long as it lives.

use crate::{Address, Port, assert_packed, plain_bytes};

/// One translation that a socket made.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// What the program dialled.
    pub dialled: Address,
    /// Where it was sent.
    pub chosen: Address,
    /// The port the program dialled.
    pub dialled_port: Port,
    /// The port it was sent to.
    pub chosen_port: Port,
    /// The id of the backend.
    pub backend: u32,
    /// The backend's generation.
    pub generation: u32,
    /// 1 while it counts as open, else 0.
    pub counted: u32,
}
assert_packed!(Translation = Address, Address, Port, Port, u32, u32, u32);

/// The value of `SOCKETS`. The kernel makes it zeroed, which is a socket that translated nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// When it was translated: nanoseconds of the monotonic clock.
    pub start: u64,
    /// Where to.
    pub translation: Translation,
}
assert_packed!(Socket = u64, Translation);

plain_bytes!(Translation, Socket);
