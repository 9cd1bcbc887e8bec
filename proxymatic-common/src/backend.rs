//! A replica, and what the kernel counts of it.

use crate::{Address, Cell64, Port, assert_packed, cell::open_count, plain_bytes};

/// The families a socket can reach, or a backend has: a set of bits.
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

    /// The family of an address.
    #[inline(always)]
    pub const fn of(address: Address) -> Self {
        if address.is_v4() { Self::V4 } else { Self::V6 }
    }

    /// What is in both.
    #[inline(always)]
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether the two have a family in common.
    #[inline(always)]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Where a backend is in its life. A number of its own in the map, so that any byte can be read.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BackendState(pub u32);

impl BackendState {
    /// Nobody's: the id may be given out. Zero, so that a fresh map holds only these.
    pub const FREE: Self = Self(0);
    /// Known, not yet to be given traffic.
    pub const WARMING: Self = Self(1);
    /// Takes new connections.
    pub const ACTIVE: Self = Self(2);
    /// Takes new connections only where its service has nothing better; keeps the open ones.
    pub const DRAINING: Self = Self(3);
    /// Its task ended. The id waits until nothing uses it.
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

/// A replica of a service, by id.
///
/// Written whole before anything names it; from then on only `state`, `weight` and `maxconn` change, each a word of
/// its own, and `local` with the addresses of the host.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where it listens.
    pub address: Address,
    /// The port it listens on.
    pub port: Port,
    /// The family of `address`.
    pub families: Families,
    /// 1 where `address` is one of this host, else 0: what is bound to loopback can reach only such.
    pub local: u8,
    /// Where it is in its life.
    pub state: BackendState,
    /// Counts the owners this id has had. A slot or socket that holds another generation means another owner.
    pub generation: u32,
    /// Its share of new connections, 0 to 1000: loads are compared in proportion to it.
    pub weight: u32,
    /// The most connections open from this host at once; 0 for no bound.
    pub maxconn: u32,
    /// The id of its service.
    pub service: u32,
    /// What one connection counts when loads are compared: [`Backend::price`] of the weight, since hooks multiply faster
    /// than they divide.
    pub price: u32,
    /// What its source says of it. `state` is the same, but where the operator drains it: see `DRAINED`. Hooks do not read
    /// it.
    pub source_state: BackendState,
    /// Always zero: room for what comes, within one cache line.
    pub _reserved: [u32; 4],
}
assert_packed!(Backend = Address, Port, Families, u8, BackendState, u32, u32, u32, u32, u32, BackendState, [u32; 4]);
const _: () = assert!(size_of::<Backend>() == 64, "one cache line");

impl Backend {
    /// An id that nobody owns, which keeps count of its owners.
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
            price: 0,
            source_state: BackendState::FREE,
            _reserved: [0; 4],
        }
    }

    /// What one connection counts at a weight. Rounded up, by less than the low bits that are cut off a sum of them: so
    /// loads that are the same for their weights come out the same.
    pub const fn price(weight: u32) -> u32 {
        (1_u32 << 28).div_ceil(if weight == 0 { 1 } else { weight })
    }
}

/// Steps of the histogram of round trip times, in microseconds: what takes no longer than one is counted there. Powers of four,
/// which seven counters stretch from one machine to another continent.
pub const RTT_STEPS_US: [u32; 6] = [100, 400, 1_600, 6_400, 25_600, 102_400];

/// What the kernel counts of a backend, by id. Two cache lines, so that neighbours do not share one.
#[repr(C)]
#[derive(Debug, Default)]
pub struct BackendStats {
    /// Connections opened, ever.
    pub opened: Cell64,
    /// Connections closed, ever; those open are the difference.
    pub closed: Cell64,
    /// TCP connections that the backend answered, ever.
    pub established: Cell64,
    /// TCP connections that it refused or did not answer, ever. Those that the program gave up are not among them.
    pub failed: Cell64,
    /// Failures since it last answered, counted once for each ejection.
    pub consecutive_failures: Cell64,
    /// Until when it is ejected: nanoseconds of the monotonic clock; 0 for not at all.
    pub ejected_until: Cell64,
    /// Round trip time in microseconds: follows a rise at once and a fall slowly; 0 for none measured yet.
    pub rtt_us: Cell64,
    /// When that was measured: nanoseconds of the monotonic clock.
    pub rtt_at: Cell64,
    /// How many handshakes took how long, by [`RTT_STEPS_US`]; the last for what took longer than all.
    pub rtts: [Cell64; 7],
    /// All of them together, in microseconds.
    pub rtt_sum_us: Cell64,
}
const _: () = assert!(size_of::<BackendStats>() == 128, "two cache lines");
const _: () = assert!(RTT_STEPS_US.len() + 1 == 7, "a step without a counter");

impl BackendStats {
    /// Connections open now.
    #[inline(always)]
    pub fn active(&self) -> u64 {
        open_count(&self.opened, &self.closed)
    }

    /// All cells, to be set to zero for a new owner.
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
