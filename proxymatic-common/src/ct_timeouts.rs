//! How long a remote client's connection stays in conntrack after its last packet. All constants are in nanoseconds.

use crate::{CtProgress, PROTOCOL_TCP};

/// One second.
const SECOND: u64 = 1_000_000_000;
/// A TCP connection whose client has not acknowledged the backend's SYN-ACK.
pub const TCP_HALF_OPEN: u64 = 5 * SECOND;
/// An idle established TCP connection.
pub const TCP_ESTABLISHED: u64 = 24 * 3600 * SECOND;
/// An idle TCP connection with a FIN from one end.
pub const TCP_HALF_CLOSED: u64 = 3600 * SECOND;
/// A TCP connection with FINs from both ends: as long as TIME_WAIT lasts in Linux.
pub const TCP_CLOSING: u64 = 60 * SECOND;
/// The minimum time before a closed connection's SNAT port may be reused, even if better ports might exist. Packets
/// still in flight between two hosts of a cluster have arrived by then. At thousands of connections a second to one
/// backend, a port is free for half a second at most.
pub const SNAT_PORT_REUSE: u64 = SECOND / 10;
/// A TCP connection that was reset.
pub const TCP_RESET: u64 = 10 * SECOND;
/// A UDP flow without an answer.
pub const UDP_UNANSWERED: u64 = 30 * SECOND;
/// A UDP flow with an answer.
pub const UDP_ANSWERED: u64 = 180 * SECOND;
/// The fragments of a packet: as long as Linux keeps them (net.ipv4.ipfrag_time).
pub const FRAGMENTS: u64 = 30 * SECOND;

/// Returns how long a connection is kept after its last packet in either direction. `own` and `other` are the progress
/// of the two directions; `open` is false for an entry in `CT_HALF_OPEN`.
pub const fn timeout(protocol: u8, open: bool, own: CtProgress, other: CtProgress) -> u64 {
    match (protocol == PROTOCOL_TCP, open) {
        (false, false) => UDP_UNANSWERED,
        (false, true) => UDP_ANSWERED,
        (true, false) => TCP_HALF_OPEN,
        (true, true) if own.with(other).has(CtProgress::RESET) => TCP_RESET,
        (true, true) if own.closes_with(other) => TCP_CLOSING,
        (true, true) if own.with(other).has(CtProgress::FINISHED) => TCP_HALF_CLOSED,
        (true, true) => TCP_ESTABLISHED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PROTOCOL_UDP;

    #[test]
    fn connection_timeout_shrinks_as_the_connection_closes() {
        let (none, fin, rst) = (CtProgress::default(), CtProgress::FINISHED, CtProgress::RESET);
        let tcp = |open, own, other| timeout(PROTOCOL_TCP, open, own, other);
        assert_eq!(tcp(false, none, none), TCP_HALF_OPEN);
        assert_eq!(tcp(true, none, none), TCP_ESTABLISHED);
        assert_eq!((tcp(true, fin, none), tcp(true, none, fin)), (TCP_HALF_CLOSED, TCP_HALF_CLOSED));
        assert_eq!(tcp(true, fin, fin), TCP_CLOSING);
        assert_eq!((tcp(true, fin, rst), tcp(true, rst, none)), (TCP_RESET, TCP_RESET));
        assert_eq!(timeout(PROTOCOL_UDP, false, none, none), UDP_UNANSWERED);
        assert_eq!(timeout(PROTOCOL_UDP, true, none, none), UDP_ANSWERED);
    }
}
