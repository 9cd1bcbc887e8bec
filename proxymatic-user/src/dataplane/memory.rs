//! The data plane's twin in memory, for tests without a kernel: the same writes, and faults on request.

use super::{Dataplane, Error, Said};
use crate::plan::{Capacity, MapOp, Tables};

/// Fails about one write in so many.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// How many writes there are to one fault; 0 for none.
    pub one_in: u64,
    /// Where the sequence starts, so that a test is the same each time.
    pub seed: u64,
}

/// Tables that follow writes, without a kernel.
#[derive(Debug)]
pub struct Memory {
    tables: Tables,
    faults: Faults,
    /// The last thing the agent said.
    pub said: Option<Said>,
    /// The writes that were carried out.
    pub applied: Vec<MapOp>,
}

impl Memory {
    /// Empty tables.
    pub fn new(capacity: Capacity, faults: Faults) -> Self {
        Self { tables: Tables::new(capacity), faults, said: None, applied: Vec::new() }
    }

    fn fault(&mut self) -> bool {
        // xorshift64: good enough to spread faults, and the same on every run.
        let mut x = self.faults.seed | 1;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.faults.seed = x;
        self.faults.one_in != 0 && x.is_multiple_of(self.faults.one_in)
    }
}

impl Dataplane for Memory {
    fn tables(&self) -> Result<Tables, Error> {
        Ok(self.tables.clone())
    }

    fn apply(&mut self, op: &MapOp) -> Result<(), Error> {
        if self.fault() {
            return Err(Error::Kernel { action: op.to_string(), reason: "injected fault".into() });
        }
        self.tables.apply(op);
        self.applied.push(op.clone());
        Ok(())
    }

    fn active(&self, _: u32) -> u64 {
        0
    }

    fn announce(&mut self, said: Said) {
        self.said = Some(said);
    }
}
