//! Carries out one map operation.

use aya::maps::lpm_trie::Key;
use proxymatic_common::{BackendStats, Name, Port, PortBit, Service, ServiceStats, Slot, SourceRange, SourceRangeKey};

use super::Maps;
use crate::{dataplane::Error, plan::MapOp};

impl Maps {
    /// Carries out one write of a plan.
    pub(super) fn apply(&mut self, op: &MapOp) -> Result<(), Error> {
        let failed = |error: aya::maps::MapError| Error::kernel(format!("{op} in {}", op.map()), &error);
        match op {
            MapOp::PutExcluded(cgroup) => self.excluded.insert(cgroup, 1, 0).map_err(failed),
            MapOp::DelExcluded(cgroup) => ignore_missing(self.excluded.remove(cgroup)).map_err(failed),
            MapOp::ResetLoad(id) => check_bounds(op, self.load(*id).map(BackendStats::reset)),
            MapOp::ResetServiceLoad(id) => check_bounds(op, self.service_load(*id).map(ServiceStats::reset)),
            MapOp::PutAllow(key) => self.allow.insert(&trie_key(key), 1, 0).map_err(failed),
            MapOp::DelAllow(key) => ignore_missing(self.allow.remove(&trie_key(key))).map_err(failed),
            MapOp::PutAllowCgroup(key) => self.allow_cgroups.insert(key, 1, 0).map_err(failed),
            MapOp::DelAllowCgroup(key) => ignore_missing(self.allow_cgroups.remove(key)).map_err(failed),
            MapOp::SetPort(port, protocol) => self.set_port(op, *port, *protocol, true),
            MapOp::ClearPort(port, protocol) => self.set_port(op, *port, *protocol, false),
            MapOp::PutBackend(id, backend) | MapOp::DemoteBackend(id, backend) | MapOp::FreeBackend(id, backend) => {
                check_bounds(op, self.backends.write(*id, *backend).then_some(()))
            }
            MapOp::PutSlots(base, slots) => self.write_slots(op, *base, slots.iter().copied()),
            MapOp::ClearSlots(base, length) => self.write_slots(op, *base, (0..*length).map(|_| Slot::default())),
            MapOp::PutService(id, settings) => check_bounds(op, self.services.write(*id, *settings).then_some(())),
            MapOp::ClearService(id) => check_bounds(op, self.services.write(*id, Service::FREE).then_some(())),
            MapOp::PutSlotRange(id, range) | MapOp::ClearHead(id, range) => {
                check_bounds(op, self.slot_ranges.cell(*id).map(|cell| cell.set(range.word())))
            }
            MapOp::PutServiceName(id, name) => self.service_names.insert(id, Name::new(name), 0).map_err(failed),
            MapOp::PutBackendName(id, name) => self.backend_names.insert(id, Name::new(name), 0).map_err(failed),
            MapOp::DelServiceName(id) => ignore_missing(self.service_names.remove(id)).map_err(failed),
            MapOp::DelBackendName(id) => ignore_missing(self.backend_names.remove(id)).map_err(failed),
            MapOp::PutFrontend(frontend, id) => self.frontends.insert(frontend, id, 0).map_err(failed),
            MapOp::DelFrontend(frontend) => ignore_missing(self.frontends.remove(frontend)).map_err(failed),
            MapOp::PutAddress(address, class) => self.addresses.insert(address, class, 0).map_err(failed),
            MapOp::DelAddress(address) => ignore_missing(self.addresses.remove(address)).map_err(failed),
        }
    }

    /// Sets or clears a bit by reading and writing its word, which only the agent writes.
    fn set_port(&self, op: &MapOp, port: Port, protocol: u8, on: bool) -> Result<(), Error> {
        let bit = PortBit::of(port, protocol).and_then(|bit| Some((self.ports.cell(bit.word)?, bit.mask)));
        check_bounds(op, bit.map(|(cell, mask)| cell.set(if on { cell.get() | mask } else { cell.get() & !mask })))
    }

    fn write_slots(&self, op: &MapOp, base: u32, slots: impl Iterator<Item = Slot>) -> Result<(), Error> {
        let mut written = slots.zip(base..).map(|(slot, index)| self.slots.write(index, slot));
        check_bounds(op, written.all(|inside| inside).then_some(()))
    }
}

fn trie_key(key: &SourceRangeKey) -> Key<SourceRange> {
    Key::new(key.prefix_len, key.network)
}

/// Returns an error for a write outside a map. Such a write is a bug of the plan and must not corrupt memory.
fn check_bounds<T>(op: &MapOp, done: Option<T>) -> Result<(), Error> {
    done.map(|_| ())
        .ok_or_else(|| Error::Kernel { action: op.to_string(), reason: format!("outside the entries of {}", op.map()) })
}

pub(super) fn ignore_missing(result: Result<(), aya::maps::MapError>) -> Result<(), aya::maps::MapError> {
    match result {
        Err(aya::maps::MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(nix::libc::ENOENT) => {
            Ok(())
        }
        other => other,
    }
}
