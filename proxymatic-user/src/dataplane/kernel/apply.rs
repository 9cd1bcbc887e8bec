//! One operation, one map write.

use proxymatic_common::{Name, Policy, Service, Slot, SourceCode};

use super::Maps;
use crate::{dataplane::Error, plan::MapOp};

impl Maps {
    /// Carries out one write.
    pub(super) fn apply(&mut self, op: &MapOp) -> Result<(), Error> {
        let failed = |error: aya::maps::MapError| Error::kernel(format!("{op} in {}", op.map()), &error);
        match op {
            MapOp::ResetLoad(id) => within(op, self.load(*id).map(|load| (load.opened.set(0), load.closed.set(0)))),
            MapOp::PutBackend(id, backend) | MapOp::LowerBackend(id, backend) | MapOp::FreeBackend(id, backend) => {
                within(op, self.backends.write(*id, *backend).then_some(()))
            }
            MapOp::PutSlots(base, slots) => self.write_slots(op, *base, slots.iter().copied()),
            MapOp::ClearSlots(base, length) => self.write_slots(op, *base, (0..*length).map(|_| Slot::default())),
            MapOp::PutService(id, settings) => within(op, self.services.write(*id, *settings).then_some(())),
            MapOp::ClearService(id) => {
                let free = Service { policy: Policy::LEASTCONN, source: SourceCode::NONE };
                within(op, self.services.write(*id, free).then_some(()))
            }
            MapOp::PutHead(id, head) | MapOp::ClearHead(id, head) => {
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

    fn write_slots(&self, op: &MapOp, base: u32, slots: impl Iterator<Item = Slot>) -> Result<(), Error> {
        let mut written = slots.zip(base..).map(|(slot, index)| self.slots.write(index, slot));
        within(op, written.all(|inside| inside).then_some(()))
    }
}

/// Writing outside a map is a bug of the plan; it must not become one of the maps.
fn within<T>(op: &MapOp, done: Option<T>) -> Result<(), Error> {
    done.map(|_| ())
        .ok_or_else(|| Error::Kernel { action: op.to_string(), reason: format!("outside the entries of {}", op.map()) })
}

fn absent_is_done(result: Result<(), aya::maps::MapError>) -> Result<(), aya::maps::MapError> {
    match result {
        Err(aya::maps::MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(nix::libc::ENOENT) => {
            Ok(())
        }
        other => other,
    }
}
