//! Test doubles of the data plane's surroundings: a clock, random numbers, events, counters and a client, in memory.
//!
//! Tables that implement [`InMemory`] get [`Environment`] and [`Subprograms`] from here, so a test of any crate only
//! has to implement [`Tables`] for what it has.

#[cfg(test)]
pub(crate) mod packet;
#[cfg(test)]
pub(crate) mod stages;
#[cfg(test)]
pub(crate) mod tables;

use core::cell::{Cell, RefCell};
use std::{collections::BTreeMap, vec::Vec};

use proxymatic_common::{Address, Event, Port, Reason};

use crate::{
    data_plane::{Caller, Environment, Subprograms, Tables},
    packed::{EjectionShares, SelectParams, SlotScore},
    types::{Listener, NetnsMatch},
};

/// A clock that tests advance, random numbers of a seed, and the events and reasons so far.
pub struct FakeEnvironment {
    now: Cell<u64>,
    random: Cell<u64>,
    events: RefCell<Vec<Event>>,
    counts: RefCell<BTreeMap<Reason, u64>>,
}

impl FakeEnvironment {
    /// Makes an environment. Equal seeds give equal random numbers; the lowest bit of the seed is ignored.
    pub fn new(seed: u64) -> Self {
        Self {
            now: Cell::new(1_000_000_000),
            random: Cell::new(seed | 1),
            events: RefCell::default(),
            counts: RefCell::default(),
        }
    }

    /// Advances the clock.
    pub fn advance(&self, seconds: f64) {
        self.now.set(self.now.get() + (seconds * 1e9) as u64);
    }

    /// Returns the events that were emitted.
    pub fn events(&self) -> Vec<Event> {
        self.events.borrow().clone()
    }

    /// Counts a reason.
    pub fn count(&self, reason: Reason) {
        *self.counts.borrow_mut().entry(reason).or_default() += 1;
    }

    /// Returns the reasons that were counted, each with its count.
    pub fn counted(&self) -> Vec<(Reason, u64)> {
        self.counts.borrow().iter().map(|(reason, n)| (*reason, *n)).collect()
    }
}

impl Environment for FakeEnvironment {
    fn random(&self) -> u32 {
        // xorshift64: tests must be the same on every run.
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        (x >> 32) as u32
    }
    fn now(&self) -> u64 {
        self.now.get()
    }
    fn emit(&self, event: &Event) -> bool {
        self.events.borrow_mut().push(*event);
        true
    }
}

/// Tables in memory.
pub trait InMemory: Tables {
    /// Returns the environment of the tables.
    fn environment(&self) -> &FakeEnvironment;
}

impl<T: InMemory> Environment for T {
    fn random(&self) -> u32 {
        self.environment().random()
    }
    fn now(&self) -> u64 {
        self.environment().now()
    }
    fn emit(&self, event: &Event) -> bool {
        self.environment().emit(event)
    }
}

/// Calls the decisions directly.
impl<T: InMemory> Subprograms for T {
    fn select(&self, service: u32, params: SelectParams, hash: u64) -> Result<(u32, Reason), Reason> {
        crate::select(self, service, params, hash)
    }
    fn score_slot(&self, index: u32, params: SelectParams) -> SlotScore {
        crate::score_slot(self, index, params)
    }
    fn slot_share(&self, index: u32, id: u32, now: u64) -> EjectionShares {
        crate::slot_share(self, index, id, now)
    }
    fn netns_match(&self, service: u32, netns: u64) -> NetnsMatch {
        crate::netns_match(self, service, netns)
    }
    fn eject(&self, service: u32, id: u32) -> u64 {
        crate::eject(self, service, id)
    }
}

/// A program in the host's network namespace, with a socket that is not bound.
#[derive(Clone, Copy)]
pub struct FakeCaller<'a> {
    /// The cookie of the network namespace.
    pub netns: u64,
    /// The address that the socket is bound to.
    pub bound: Address,
    /// The port that the socket is bound to.
    pub bound_port: u32,
    /// SO_MARK.
    pub mark: u32,
    /// The process id.
    pub tgid: u32,
    /// The user id.
    pub uid: u32,
    /// The cgroup at level 1, and the cgroup of the process.
    pub cgroups: [u64; 2],
    /// The listener on every port.
    pub listener: Listener,
    /// The result of [`Caller::cgroup_listed`].
    pub listed: &'a dyn Fn(Option<u32>) -> bool,
}

impl Default for FakeCaller<'_> {
    fn default() -> Self {
        Self {
            netns: 1,
            bound: Address::ZERO,
            bound_port: 0,
            mark: 0,
            tgid: 77,
            uid: 1000,
            cgroups: [40, 41],
            listener: Listener::None,
            listed: &|_| false,
        }
    }
}

impl Caller for FakeCaller<'_> {
    fn netns(&self) -> u64 {
        self.netns
    }
    fn bound(&self) -> Address {
        self.bound
    }
    fn bound_port(&self) -> u32 {
        self.bound_port
    }
    fn mark(&self) -> u32 {
        self.mark
    }
    fn tgid(&self) -> u32 {
        self.tgid
    }
    fn uid(&self) -> u32 {
        self.uid
    }
    fn cgroup(&self) -> u64 {
        self.cgroups[1]
    }
    fn ancestor(&self, level: u32) -> u64 {
        self.cgroups.get(level as usize - 1).copied().unwrap_or(0)
    }
    fn cgroup_listed(&self, service: Option<u32>) -> bool {
        (self.listed)(service)
    }
    fn listener(&self, _: &Address, _: Port, _: u8) -> Listener {
        self.listener
    }
}
