//! Which class of addresses means what: class 1 every address of this host, each further class one virtual address.

use std::collections::{BTreeMap, BTreeSet};

use proxymatic_common::{Address, Class, Frontend, PROTOCOL_TCP, PROTOCOL_UDP, Port};

use super::{Desired, MapOp, MapState, builder::PlanBuilder};
use crate::model::{Protocol, ServiceKey, Warning};

/// The classes that a plan uses.
pub(super) struct Classes {
    wanted: BTreeMap<Address, Class>,
    has: u32,
}

impl Classes {
    /// Virtual addresses keep the class they have; new ones get the lowest that nothing uses, as long as they fit.
    pub(super) fn of(desired: &Desired, tables: &MapState) -> Self {
        let mut wanted: BTreeMap<_, _> =
            desired.addresses.iter().map(|address| (Address::from(*address), Class::HOST)).collect();
        // Frontends too: an address may be gone, or not be there yet, while they are.
        let known = tables.addresses().values().chain(tables.frontends().keys().map(|frontend| &frontend.class));
        let mut used: BTreeSet<_> = known.copied().collect();
        used.insert(Class::HOST);
        let asked: BTreeSet<_> = desired.services.keys().filter_map(|key| key.address).map(Address::from).collect();
        let has_class = |address: &Address| tables.addresses().get(address).filter(|class| **class != Class::HOST);
        for (address, class) in asked.iter().filter_map(|address| Some((*address, *has_class(address)?))) {
            wanted.entry(address).or_insert(class);
        }
        // What stays as it is stays where it is.
        let kept = tables.frontends().iter().filter(|(_, id)| desired.keeps(tables, **id));
        let kept: BTreeSet<_> = kept.map(|(frontend, _)| frontend.class).collect();
        for (address, class) in tables.addresses().iter().filter(|(_, class)| **class != Class::HOST) {
            if kept.contains(class) {
                wanted.entry(*address).or_insert(*class);
            }
        }
        // One that does not fit gets no class: a service without an address would be given another class each time.
        let has = tables.capacity.addresses;
        for address in asked {
            if wanted.len() < has as usize && !wanted.contains_key(&address) {
                let free = (2..).map(Class).find(|class| !used.contains(class)).unwrap_or(Class(u32::MAX));
                used.insert(free);
                wanted.insert(address, free);
            }
        }
        Self { wanted, has }
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
                Some(_) => return Err(format!("virtual address {key} is not served: it is an address of this host")),
                None => {
                    let has = self.has;
                    return Err(format!(
                        "virtual address {key} does not fit: ADDRESSES holds {has} entries, all taken; use fewer addresses"
                    ));
                }
            },
        };
        let protocol = match key.protocol {
            Protocol::Tcp => PROTOCOL_TCP,
            Protocol::Udp => PROTOCOL_UDP,
        };
        Ok(Frontend::new(class, Port::new(key.port), protocol))
    }

    /// The writes that make the addresses mean this.
    pub(super) fn put(&self, draft: &mut PlanBuilder<'_>, warnings: &mut Vec<Warning>) {
        let known = draft.tables.addresses();
        let has = draft.tables.capacity.addresses as usize;
        if self.wanted.len() > has {
            let wanted = self.wanted.len();
            let reason = format!("{wanted} addresses do not fit: ADDRESSES holds {has}; they stay as they were");
            warnings.push(Warning { app: "addresses".into(), reason });
            return;
        }
        draft.ops.extend(known.keys().filter(|a| !self.wanted.contains_key(a)).map(|a| MapOp::DelAddress(*a)));
        let new = self.wanted.iter().filter(|(address, class)| known.get(address) != Some(class));
        draft.ops.extend(new.map(|(address, class)| MapOp::PutAddress(*address, *class)));
    }
}
