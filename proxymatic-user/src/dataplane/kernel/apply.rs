//! One operation, one map write.

use aya::maps::lpm_trie::Key;
use proxymatic_common::{BackendStats, Name, Port, PortBit, Service, ServiceStats, Slot, SourceRange, SourceRangeKey};

use super::Maps;
use crate::{dataplane::Error, plan::MapOp};

impl Maps {
    /// Carries out one write.
    pub(super) fn apply(&mut self, op: &MapOp) -> Result<(), Error> {
        let failed = |error: aya::maps::MapError| Error::kernel(format!("{op} in {}", op.map()), &error);
        match op {
            MapOp::PutExcluded(cgroup) => self.excluded.insert(cgroup, 1, 0).map_err(failed),
            MapOp::DelExcluded(cgroup) => absent_is_done(self.excluded.remove(cgroup)).map_err(failed),
            MapOp::ResetLoad(id) => within(op, self.load(*id).map(BackendStats::reset)),
            MapOp::ResetServiceLoad(id) => within(op, self.service_load(*id).map(ServiceStats::reset)),
            MapOp::PutAllow(key) => self.allow.insert(&trie_key(key), 1, 0).map_err(failed),
            MapOp::DelAllow(key) => absent_is_done(self.allow.remove(&trie_key(key))).map_err(failed),
            MapOp::PutAllowCgroup(key) => self.allow_cgroups.insert(key, 1, 0).map_err(failed),
            MapOp::DelAllowCgroup(key) => absent_is_done(self.allow_cgroups.remove(key)).map_err(failed),
            MapOp::SetPort(port, protocol) => self.set_port(op, *port, *protocol, true),
            MapOp::ClearPort(port, protocol) => self.set_port(op, *port, *protocol, false),
            MapOp::PutBackend(id, backend) | MapOp::DemoteBackend(id, backend) | MapOp::FreeBackend(id, backend) => {
                within(op, self.backends.write(*id, *backend).then_some(()))
            }
            MapOp::PutSlots(base, slots) => self.write_slots(op, *base, slots.iter().copied()),
            MapOp::ClearSlots(base, length) => self.write_slots(op, *base, (0..*length).map(|_| Slot::default())),
            MapOp::PutService(id, settings) => within(op, self.services.write(*id, *settings).then_some(())),
            MapOp::ClearService(id) => within(op, self.services.write(*id, Service::FREE).then_some(())),
            MapOp::PutSlotRange(id, head) | MapOp::ClearHead(id, head) => {
                within(op, self.heads.cell(*id).map(|cell| cell.set(head.word())))
            }
            MapOp::PutServiceName(id, name) => self.service_names.insert(id, Name::new(name), 0).map_err(failed),
            MapOp::PutBackendName(id, name) => self.backend_names.insert(id, Name::new(name), 0).map_err(failed),
            MapOp::DelServiceName(id) => absent_is_done(self.service_names.remove(id)).map_err(failed),
            MapOp::DelBackendName(id) => absent_is_done(self.backend_names.remove(id)).map_err(failed),
            MapOp::PutFrontend(frontend, id) => self.frontends.insert(frontend, id, 0).map_err(failed),
            MapOp::DelFrontend(frontend) => absent_is_done(self.frontends.remove(frontend)).map_err(failed),
            MapOp::PutAddress(address, class) => self.addresses.insert(address, class, 0).map_err(failed),
            MapOp::DelAddress(address) => absent_is_done(self.addresses.remove(address)).map_err(failed),
        }
    }

    /// The agent alone writes these words, so that a bit is changed by reading and writing back.
    fn set_port(&self, op: &MapOp, port: Port, protocol: u8, on: bool) -> Result<(), Error> {
        let bit = PortBit::of(port, protocol).and_then(|bit| Some((self.ports.cell(bit.word)?, bit.mask)));
        within(op, bit.map(|(cell, mask)| cell.set(if on { cell.get() | mask } else { cell.get() & !mask })))
    }

    fn write_slots(&self, op: &MapOp, base: u32, slots: impl Iterator<Item = Slot>) -> Result<(), Error> {
        let mut written = slots.zip(base..).map(|(slot, index)| self.slots.write(index, slot));
        within(op, written.all(|inside| inside).then_some(()))
    }
}

fn trie_key(key: &SourceRangeKey) -> Key<SourceRange> {
    Key::new(key.prefix_len, key.network)
}

/// Writing outside a map is a bug of the plan; it must not become one of the maps.
fn within<T>(op: &MapOp, done: Option<T>) -> Result<(), Error> {
    done.map(|_| ())
        .ok_or_else(|| Error::Kernel { action: op.to_string(), reason: format!("outside the entries of {}", op.map()) })
}

pub(super) fn absent_is_done(result: Result<(), aya::maps::MapError>) -> Result<(), aya::maps::MapError> {
    match result {
        Err(aya::maps::MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(nix::libc::ENOENT) => {
            Ok(())
        }
        other => other,
    }
}
