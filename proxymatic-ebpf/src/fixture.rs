//! Tables in plain memory, for the tests of this crate.

use core::cell::{Cell, RefCell};
use std::{collections::BTreeMap, net::IpAddr, vec::Vec};

use proxymatic_common::{
    Address, Backend, BackendState, Cell64, Class, Config, Families, Frontend, Head, Load, Loopback, PROTOCOL_TCP,
    Port, Reason, Slot,
};

use crate::{Flow, Tables};

/// One service, id 0, on port 1234, as the agent would publish it.
pub(crate) struct Fixture {
    pub(crate) config: Config,
    pub(crate) netns: u64,
    pub(crate) addresses: BTreeMap<Address, Class>,
    pub(crate) heads: Vec<Head>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) backends: Vec<Backend>,
    pub(crate) loads: Vec<Load>,
    random: Cell<u64>,
    counts: RefCell<BTreeMap<Reason, u64>>,
}

impl Fixture {
    /// Backends 10.9.0.0, 10.9.0.1, ... with a slot for each unit of weight.
    pub(crate) fn with_weights(weights: &[u32]) -> Self {
        let backend = |(i, weight): (usize, &u32)| Backend {
            address: address(&std::format!("10.9.0.{i}")),
            port: Port::new(8000),
            families: Families::V4,
            state: BackendState::ACTIVE,
            weight: *weight,
            ..Backend::free(7)
        };
        let slot = |(i, weight): (usize, &u32)| std::vec![Slot::new(i as u32, 7); *weight as usize];
        let slots: Vec<Slot> = weights.iter().enumerate().flat_map(slot).collect();
        Self {
            config: Config { loopback: Loopback::HOST, host_netns: 1, ..Config::default() },
            netns: 1,
            addresses: BTreeMap::new(),
            heads: std::vec![Head::new(1, slots.len() as u32, 0).unwrap()],
            slots,
            backends: weights.iter().enumerate().map(backend).collect(),
            loads: weights.iter().map(|_| Load::default()).collect(),
            random: Cell::new(88_172_645_463_325_252),
            counts: RefCell::default(),
        }
    }

    pub(crate) fn address(mut self, text: &str, class: Class) -> Self {
        self.addresses.insert(address(text), class);
        self
    }

    /// The reasons counted so far.
    pub(crate) fn counted(&self) -> Vec<(Reason, u64)> {
        self.counts.borrow().iter().map(|(reason, n)| (*reason, *n)).collect()
    }
}

impl Tables for Fixture {
    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }
    fn netns(&self) -> u64 {
        self.netns
    }
    fn class(&self, address: &Address) -> Option<Class> {
        self.addresses.get(address).copied()
    }
    fn frontend(&self, frontend: &Frontend) -> Option<u32> {
        (*frontend == Frontend::new(Class::HOST, Port::new(1234), PROTOCOL_TCP)).then_some(0)
    }
    fn head(&self, service: u32) -> Head {
        self.heads.get(service as usize).copied().unwrap_or_default()
    }
    fn slot(&self, index: u32) -> Option<Slot> {
        self.slots.get(index as usize).copied()
    }
    fn backend(&self, id: u32) -> Option<&Backend> {
        self.backends.get(id as usize)
    }
    fn load(&self, id: u32) -> Option<&Load> {
        self.loads.get(id as usize)
    }
    fn random(&self) -> u32 {
        // xorshift64: the tests must be the same on every run.
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        (x >> 32) as u32
    }
    fn now(&self) -> u64 {
        1
    }
    fn add(&self, cell: &Cell64) {
        cell.add(1);
    }
    fn count(&self, reason: Reason) {
        *self.counts.borrow_mut().entry(reason).or_default() += 1;
    }
}

pub(crate) fn address(text: &str) -> Address {
    text.parse::<IpAddr>().unwrap().into()
}

pub(crate) fn flow(to: &str, port: u16) -> Flow {
    Flow { address: address(to), port: Port::new(port), protocol: PROTOCOL_TCP, families: Families::V4 }
}
