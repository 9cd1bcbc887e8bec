//! A backend, and the kernel's counters of it.

use crate::{Address, Cell64, Port, assert_packed, cell::open_count, plain_bytes};

/// The address families that a socket can reach, or that a backend has: a set of bits.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families(pub u8);

impl Families {
    /// IPv4.
    pub const V4: Self = Self(1);
    /// IPv6.
    pub const V6: Self = Self(2);
    /// Both.
    pub const BOTH: Self = Self(3);

    /// Returns the family of an address.
    #[inline(always)]
    pub const fn of(address: Address) -> Self {
        if address.is_v4() { Self::V4 } else { Self::V6 }
    }

    /// Returns the families in both sets.
    #[inline(always)]
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns whether the two sets have a family in common.
    #[inline(always)]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// The state in a backend's life. A plain number in the map, so that every value can be read.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BackendState(pub u32);

impl BackendState {
    /// No owner: the agent may assign the id. Zero, so that a new map holds only this state.
    pub const FREE: Self = Self(0);
    /// Known, but takes no traffic yet.
    pub const WARMING: Self = Self(1);
    /// Takes new connections.
    pub const ACTIVE: Self = Self(2);
    /// Takes new connections only if its service has nothing better; keeps the open ones.
    pub const DRAINING: Self = Self(3);
    /// The task ended. The id waits until nothing uses it.
    pub const GONE: Self = Self(4);

    /// The name in tables, JSON and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FREE => "free",
            Self::WARMING => "warming",
            Self::ACTIVE => "active",
            Self::DRAINING => "draining",
            Self::GONE => "gone",
            _ => "unknown",
        }
    }
}

/// A backend, by id.
///
/// The agent writes the whole entry before anything names it. Afterwards only `state`, `weight` and `maxconn` change,
/// each in one store, and `local` with the host's addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The address on which the backend listens.
    pub address: Address,
    /// The port on which the backend listens.
    pub port: Port,
    /// The family of `address`.
    pub families: Families,
    /// 1 if `address` belongs to this host, else 0. A socket bound to loopback can reach only local backends.
    pub local: u8,
    /// The state in the backend's life.
    pub state: BackendState,
    /// The number of owners that this id has had. A slot or socket with another generation refers to another owner.
    pub generation: u32,
    /// The share of new connections, 0 to 1000. Hooks compare loads in proportion to the weight.
    pub weight: u32,
    /// The limit of open connections from this host; 0 for none.
    pub maxconn: u32,
    /// The id of its service.
    pub service: u32,
    /// The load of one connection, for comparisons: [`Backend::inverse_weight`] of the weight. Hooks multiply by it because a
    /// multiplication is faster than a division.
    pub inverse_weight: u32,
    /// The state according to the source. It equals `state` unless the operator drains the backend: see `DRAINED`.
    /// Hooks do not read it.
    pub source_state: BackendState,
    /// Always zero; reserved for future fields within one cache line.
    pub _reserved: [u32; 4],
}
assert_packed!(Backend = Address, Port, Families, u8, BackendState, u32, u32, u32, u32, u32, BackendState, [u32; 4]);
const _: () = assert!(size_of::<Backend>() == 64, "one cache line");

impl Backend {
    /// An id without an owner; it keeps the count of its owners.
    pub const fn free(generation: u32) -> Self {
        Self {
            address: Address::from_v4_word(0),
            port: Port::new(0),
            families: Families(0),
            local: 0,
            state: BackendState::FREE,
            generation,
            weight: 0,
            maxconn: 0,
            service: 0,
            inverse_weight: 0,
            source_state: BackendState::FREE,
            _reserved: [0; 4],
        }
    }

    /// Returns the load of one connection at a weight. The result is rounded up, by less than the low bits that hooks
    /// cut off from a sum of loads. So backends with equal load for their weight compare as equal.
    pub const fn inverse_weight(weight: u32) -> u32 {
        (1_u32 << 28).div_ceil(if weight == 0 { 1 } else { weight })
    }
}

/// The upper bounds of the buckets in the histogram of round trip times, in microseconds. They are powers of four, so
/// that seven counters cover everything from one machine to another continent.
pub const RTT_STEPS_US: [u32; 6] = [100, 400, 1_600, 6_400, 25_600, 102_400];

/// The kernel's counters of a backend, by id. Two cache lines, so that adjacent backends do not share one.
#[repr(C)]
#[derive(Debug, Default)]
pub struct BackendStats {
    /// Connections opened since the owner got the id.
    pub opened: Cell64,
    /// Connections closed since then; the difference is the number of open connections.
    pub closed: Cell64,
    /// TCP connections that the backend answered since then.
    pub established: Cell64,
    /// TCP connections that the backend refused or did not answer since then. Connections that the program gave up do
    /// not count.
    pub failed: Cell64,
    /// Failures since the last answer, counted once for each ejection.
    pub consecutive_failures: Cell64,
    /// The end of the ejection: nanoseconds of the monotonic clock; 0 if the backend is not ejected.
    pub ejected_until: Cell64,
    /// The round trip time in microseconds. It follows a rise at once and a fall slowly; 0 if none was measured yet.
    pub rtt_us: Cell64,
    /// The time of that measurement: nanoseconds of the monotonic clock.
    pub rtt_at: Cell64,
    /// The number of handshakes in each bucket of [`RTT_STEPS_US`]; the last counter is for slower ones.
    pub rtts: [Cell64; 7],
    /// The sum of all measured round trip times, in microseconds.
    pub rtt_sum_us: Cell64,
}
const _: () = assert!(size_of::<BackendStats>() == 128, "two cache lines");
const _: () = assert!(RTT_STEPS_US.len() + 1 == 7, "a step without a counter");

impl BackendStats {
    /// Returns the number of open connections.
    #[inline(always)]
    pub fn active(&self) -> u64 {
        open_count(&self.opened, &self.closed)
    }

    /// Sets all cells to zero for a new owner.
    #[cfg(not(target_arch = "bpf"))]
    pub fn reset(&self) {
        let Self {
            opened,
            closed,
            established,
            failed,
            consecutive_failures,
            ejected_until,
            rtt_us,
            rtt_at,
            rtts,
            rtt_sum_us,
        } = self;
        let cells =
            [opened, closed, established, failed, consecutive_failures, ejected_until, rtt_us, rtt_at, rtt_sum_us];
        cells.into_iter().chain(rtts).for_each(|cell| cell.set(0));
    }
}

plain_bytes!(Families, BackendState, Backend);
