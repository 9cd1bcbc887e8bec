//! Carries out one map operation.

use aya::maps::{MapError, lpm_trie::Key};
use proxymatic_common::{
    Backend, BackendStats, Port, PortBit, Service, ServiceStats, Slot, SlotRange, SourceRange, SourceRangeKey,
    maps::KeyedMap,
};

use super::{Maps, maps::ignore_missing};
use crate::{
    dataplane::Error,
    plan::{EntryWriter, MapOp},
};

/// Why an entry was not written.
#[derive(Debug)]
pub enum WriteError {
    /// The kernel refused the write.
    Refused(MapError),
    /// The entry is outside the map. Such a write is a bug of the plan and must not corrupt memory.
    OutOfBounds,
}

impl Maps {
    /// Carries out one write of a plan.
    pub(super) fn apply(&mut self, op: &MapOp) -> Result<(), Error> {
        op.write_to(self).map_err(|error| match error {
            WriteError::Refused(error) => Error::kernel(format!("{op} in {}", op.map()), &error),
            WriteError::OutOfBounds => {
                Error::Kernel { action: op.to_string(), reason: format!("outside the entries of {}", op.map()) }
            }
        })
    }
}

impl EntryWriter for Maps {
    type Error = WriteError;

    fn insert<D: KeyedMap>(&mut self, key: &D::Key, value: &D::Value) -> Result<(), WriteError> {
        self.set_keyed::<D>(key, Some(value)).map_err(WriteError::Refused)
    }

    fn remove<D: KeyedMap>(&mut self, key: &D::Key) -> Result<(), WriteError> {
        self.set_keyed::<D>(key, None).map_err(WriteError::Refused)
    }

    fn set_source_range(&mut self, key: &SourceRangeKey, is_in: bool) -> Result<(), WriteError> {
        let key: Key<SourceRange> = Key::new(key.prefix_len, key.network);
        let done =
            if is_in { self.source_ranges.insert(&key, 1, 0) } else { ignore_missing(self.source_ranges.remove(&key)) };
        done.map_err(WriteError::Refused)
    }

    /// Sets or clears a bit by reading and writing its word, which only the agent writes.
    fn set_port(&mut self, port: Port, protocol: u8, is_set: bool) -> Result<(), WriteError> {
        let bit = PortBit::of(port, protocol).and_then(|bit| Some((self.ports.cell(bit.word)?, bit.mask)));
        inside(bit.map(|(cell, mask)| cell.set(if is_set { cell.get() | mask } else { cell.get() & !mask })))
    }

    fn set_backend(&mut self, id: u32, backend: &Backend) -> Result<(), WriteError> {
        inside(self.backends.write(id, *backend).then_some(()))
    }

    fn set_service(&mut self, id: u32, service: &Service) -> Result<(), WriteError> {
        inside(self.services.write(id, *service).then_some(()))
    }

    fn set_slot_range(&mut self, id: u32, range: SlotRange) -> Result<(), WriteError> {
        inside(self.slot_ranges.cell(id).map(|cell| cell.set(range.word())))
    }

    fn set_slots(&mut self, base: u32, slots: impl Iterator<Item = Slot>) -> Result<(), WriteError> {
        let mut written = slots.zip(base..).map(|(slot, index)| self.slots.write(index, slot));
        inside(written.all(|inside| inside).then_some(()))
    }

    fn reset_backend_stats(&mut self, id: u32) -> Result<(), WriteError> {
        inside(self.load(id).map(BackendStats::reset))
    }

    fn reset_service_stats(&mut self, id: u32) -> Result<(), WriteError> {
        inside(self.service_load(id).map(ServiceStats::reset))
    }
}

fn inside(done: Option<()>) -> Result<(), WriteError> {
    done.ok_or(WriteError::OutOfBounds)
}
