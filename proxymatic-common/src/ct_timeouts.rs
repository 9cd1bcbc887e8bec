//! For how long connections of clients on other machines are kept after their last packet. All in nanoseconds.

use crate::{CtProgress, PROTOCOL_TCP};

/// One second.
const SECOND: u64 = 1_000_000_000;
/// A TCP connection whose client has not answered the backend yet.
pub const TCP_HALF_OPEN: u64 = 5 * SECOND;
/// An open TCP connection on which nothing is sent.
pub const TCP_ESTABLISHED: u64 = 24 * 3600 * SECOND;
/// A TCP connection of which one end has said all it has to say, on which nothing is sent.
pub const TCP_HALF_CLOSED: u64 = 3600 * SECOND;
/// A TCP connection of which both ends have said all: as long as TIME_WAIT lasts in Linux.
pub const TCP_CLOSING: u64 = 60 * SECOND;
/// A connection that is over, before another may have its source port though there might be better ones: what is still on
/// its way between two hosts of a cluster has come by then. Thousands of connections a second to one backend leave a port
/// no longer than half a second.
pub const SNAT_PORT_REUSE: u64 = SECOND / 10;
/// A TCP connection that was reset.
pub const TCP_RESET: u64 = 10 * SECOND;
/// Datagrams that nobody has answered yet.
pub const UDP_UNANSWERED: u64 = 30 * SECOND;
/// Datagrams that were answered.
pub const UDP_ANSWERED: u64 = 180 * SECOND;
/// The fragments of a packet: what Linux waits for them (net.ipv4.ipfrag_time).
pub const FRAGMENTS: u64 = 30 * SECOND;

/// For how long after its last packet a connection is kept. The packet and the progress are those of both halves; what is
/// in `CT_HALF_OPEN` is not `open`.
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
    fn the_nearer_its_end_the_sooner_a_connection_is_forgotten() {
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
