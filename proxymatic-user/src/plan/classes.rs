//! Which class of addresses means what: class 1 every address of this host, each further class one virtual address.

use std::collections::{BTreeMap, BTreeSet};

use proxymatic_common::{Address, Class, Frontend, PROTOCOL_TCP, PROTOCOL_UDP, Port};

use super::{Desired, MapOp, Tables, draft::Draft};
use crate::model::{Complaint, Protocol, ServiceKey};

/// The classes that a plan uses.
pub(super) struct Classes {
    wanted: BTreeMap<Address, Class>,
}

impl Classes {
    /// Virtual addresses keep the class they have; new ones get the lowest that nothing uses.
    pub(super) fn of(desired: &Desired, tables: &Tables) -> Self {
        let mut wanted: BTreeMap<_, _> =
            desired.addresses.iter().map(|address| (Address::from(*address), Class::HOST)).collect();
        // Frontends too: an address may be gone, or not be there yet, while they are.
        let known = tables.addresses().values().chain(tables.frontends().keys().map(|frontend| &frontend.class));
        let mut used: BTreeSet<_> = known.copied().collect();
        used.insert(Class::HOST);
        for address in desired.services.keys().filter_map(|key| key.address) {
            let address = Address::from(address);
            wanted.entry(address).or_insert_with(|| match tables.addresses().get(&address) {
                Some(class) if *class != Class::HOST => *class,
                _ => {
                    let free = (2..).map(Class).find(|class| !used.contains(class)).unwrap_or(Class(u32::MAX));
                    used.insert(free);
                    free
                }
            });
        }
        // What stays as it is stays where it is.
        let kept = tables.frontends().iter().filter(|(_, id)| desired.keeps(tables, **id));
        let kept: BTreeSet<_> = kept.map(|(frontend, _)| frontend.class).collect();
        for (address, class) in tables.addresses().iter().filter(|(_, class)| **class != Class::HOST) {
            if kept.contains(class) {
                wanted.entry(*address).or_insert(*class);
            }
        }
        Self { wanted }
    }

    /// Where a service is to be found.
    ///
    /// # Errors
    /// It cannot be served; one sentence.
    pub(super) fn frontend(&self, key: ServiceKey) -> Result<Frontend, String> {
        let class = match key.address {
            None => Class::HOST,
            Some(address) => match self.wanted.get(&address.into()) {
                Some(class) if *class != Class::HOST => *class,
                _ => return Err(format!("virtual address {key} is not served: it is an address of this host")),
            },
        };
        let protocol = match key.protocol {
            Protocol::Tcp => PROTOCOL_TCP,
            Protocol::Udp => PROTOCOL_UDP,
        };
        Ok(Frontend::new(class, Port::new(key.port), protocol))
    }

    /// The writes that make the addresses mean this.
    pub(super) fn put(&self, draft: &mut Draft<'_>, complaints: &mut Vec<Complaint>) {
        let known = draft.tables.addresses();
        let has = draft.tables.capacity.addresses as usize;
        if self.wanted.len() > has {
            let wanted = self.wanted.len();
            let reason = format!("{wanted} addresses do not fit: ADDRESSES holds {has}; they stay as they were");
            complaints.push(Complaint { app: "addresses".into(), reason });
            return;
        }
        draft.ops.extend(known.keys().filter(|a| !self.wanted.contains_key(a)).map(|a| MapOp::DelAddress(*a)));
        let new = self.wanted.iter().filter(|(address, class)| known.get(address) != Some(class));
        draft.ops.extend(new.map(|(address, class)| MapOp::PutAddress(*address, *class)));
    }
}
