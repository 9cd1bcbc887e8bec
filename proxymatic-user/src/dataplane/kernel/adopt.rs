//! From pinned maps to tables: whoever wrote them, and wherever it was stopped.

use std::{collections::BTreeMap, os::fd::AsFd as _};

use aya::maps::{HashMap, IterableMap as _, MapData, MapError};
use proxymatic_common::{
    AllowKey, BackendState, Head, Name, PROTOCOL_TCP, PROTOCOL_UDP, Port, PortBit, Slot, SourceCode,
};

use super::{Maps, bpf};
use crate::{
    dataplane::Error,
    plan::{MapOp, Tables},
};

impl Maps {
    /// What the maps hold.
    ///
    /// Built by the same writes that plans are made of, so that adopted tables and followed ones cannot differ. Total:
    /// what makes no sense (a head beyond the slots, a name without an owner) is left out and so becomes free.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn tables(&self) -> Result<Tables, Error> {
        let mut tables = Tables::new(self.capacity());
        self.adopt_backends(&mut tables)?;
        self.adopt_allow_lists(&mut tables)?;
        self.adopt_services(&mut tables)?;
        for (frontend, id) in all("FRONTENDS", &self.frontends)? {
            if id < self.services.entries() {
                tables.apply(&MapOp::PutFrontend(frontend, id));
            }
        }
        for (address, class) in all("ADDRESSES", &self.addresses)? {
            tables.apply(&MapOp::PutAddress(address, class));
        }
        for (cgroup, _) in all("EXCLUDED", &self.excluded)? {
            tables.apply(&MapOp::PutExcluded(cgroup));
        }
        self.adopt_ports(&mut tables);
        Ok(tables)
    }

    fn adopt_ports(&self, tables: &mut Tables) {
        for protocol in [PROTOCOL_TCP, PROTOCOL_UDP] {
            for port in (0..=u16::MAX).map(Port::new) {
                let Some(bit) = PortBit::of(port, protocol) else { continue };
                if self.ports.cell(bit.word).is_some_and(|cell| cell.get() & bit.mask != 0) {
                    tables.apply(&MapOp::SetPort(port, protocol));
                }
            }
        }
    }

    /// Before the services: a list without one is under a free id, which is then freed once more, list included.
    fn adopt_allow_lists(&self, tables: &mut Tables) -> Result<(), Error> {
        let keys: Result<Vec<_>, MapError> = self.allow.keys().collect();
        for key in keys.map_err(|error| Error::kernel("read ALLOW", &error))? {
            let key = AllowKey { bits: key.prefix_len(), network: key.data() };
            if key.network.service < self.services.entries() {
                tables.apply(&MapOp::PutAllow(key));
            }
        }
        for (key, _) in all("ALLOW_CGROUPS", &self.allow_cgroups)? {
            if key.service < self.services.entries() {
                tables.apply(&MapOp::PutAllowCgroup(key));
            }
        }
        Ok(())
    }

    fn adopt_backends(&self, tables: &mut Tables) -> Result<(), Error> {
        let names = names("BACKEND_NAMES", &self.backend_names)?;
        for id in 0..self.backends.entries() {
            let Some(backend) = self.backends.read(id) else { continue };
            if backend.state == BackendState::FREE {
                if backend.generation != 0 {
                    tables.apply(&MapOp::FreeBackend(id, backend));
                }
            } else if backend.service < self.services.entries() {
                tables.apply(&MapOp::PutBackend(id, backend));
                if let Some(name) = names.get(&id) {
                    tables.apply(&MapOp::PutBackendName(id, name.clone()));
                }
            }
        }
        Ok(())
    }

    fn adopt_services(&self, tables: &mut Tables) -> Result<(), Error> {
        let names = names("SERVICE_NAMES", &self.service_names)?;
        for id in 0..self.services.entries() {
            let Some(settings) = self.services.read(id) else { continue };
            let head = self.heads.cell(id).map_or(Head::default(), |cell| Head::from_word(cell.get()));
            if settings.source == SourceCode::NONE && head.length() == 0 && !tables.services().contains_key(&id) {
                // Free. Its head only counts switches.
                if head.word() != 0 {
                    tables.apply(&MapOp::PutHead(id, head));
                    tables.apply(&MapOp::DelServiceName(id));
                }
                continue;
            }
            tables.apply(&MapOp::PutService(id, settings));
            if let Some(name) = names.get(&id) {
                tables.apply(&MapOp::PutServiceName(id, name.clone()));
            }
            match self.slots_of(head) {
                Some(slots) => {
                    tables.apply(&MapOp::PutSlots(head.base(), slots));
                    tables.apply(&MapOp::PutHead(id, head));
                }
                None => {
                    let empty = Head::new(head.generation(), 0, 0).unwrap_or_default();
                    tables.apply(&MapOp::PutHead(id, empty));
                }
            }
        }
        Ok(())
    }

    fn slots_of(&self, head: Head) -> Option<Vec<Slot>> {
        let end = head.base().checked_add(head.length())?;
        if head.length() == 0 || end > self.slots.entries() {
            return None;
        }
        (head.base()..end).map(|index| self.slots.read(index)).collect()
    }
}

pub(super) fn all<K: aya::Pod, V: aya::Pod>(name: &str, map: &HashMap<MapData, K, V>) -> Result<Vec<(K, V)>, Error> {
    if let Ok(found) = bpf::entries(map.map().fd().as_fd()) {
        return Ok(found);
    }
    let entries: Result<_, MapError> = map.iter().collect();
    entries.map_err(|error| Error::kernel(format!("read {name}"), &error))
}

fn names(name: &str, map: &HashMap<MapData, u32, Name>) -> Result<BTreeMap<u32, String>, Error> {
    Ok(all(name, map)?.into_iter().map(|(id, name)| (id, name.to_text())).collect())
}
