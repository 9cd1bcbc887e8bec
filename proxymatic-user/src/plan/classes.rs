//! Address classes: class 1 is every address of this host, each other class is one virtual address.

use std::collections::{BTreeMap, BTreeSet};

use proxymatic_common::{Address, Class, Frontend, PROTOCOL_TCP, PROTOCOL_UDP, Port};

use super::{Desired, MapOp, MapState, builder::PlanBuilder};
use crate::model::{Protocol, ServiceKey, Warning};

/// The address classes that a plan uses.
pub(super) struct Classes {
    classes: BTreeMap<Address, Class>,
    has: u32,
}

impl Classes {
    /// Assigns classes. A virtual address keeps its class; a new one gets the lowest unused class, as long as the map
    /// has room.
    pub(super) fn assign(desired: &Desired, tables: &MapState) -> Self {
        let mut classes: BTreeMap<_, _> =
            desired.addresses.iter().map(|address| (Address::from(*address), Class::HOST)).collect();
        // Classes of frontends count as used too: an address may be deleted before its frontends, or be added after
        // them.
        let known = tables.addresses().values().chain(tables.frontends().keys().map(|frontend| &frontend.class));
        let mut used: BTreeSet<_> = known.copied().collect();
        used.insert(Class::HOST);
        let virtual_addresses: BTreeSet<_> =
            desired.services.keys().filter_map(|key| key.address).map(Address::from).collect();
        let has_class = |address: &Address| tables.addresses().get(address).filter(|class| **class != Class::HOST);
        for (address, class) in virtual_addresses.iter().filter_map(|address| Some((*address, *has_class(address)?))) {
            classes.entry(address).or_insert(class);
        }
        // Retained services keep their addresses.
        let retained = tables.frontends().iter().filter(|(_, id)| desired.retains(tables, **id));
        let retained: BTreeSet<_> = retained.map(|(frontend, _)| frontend.class).collect();
        for (address, class) in tables.addresses().iter().filter(|(_, class)| **class != Class::HOST) {
            if retained.contains(class) {
                classes.entry(*address).or_insert(*class);
            }
        }
        // An address that does not fit gets no class. Otherwise its service would get another class with each plan.
        let has = tables.capacity.addresses;
        for address in virtual_addresses {
            if classes.len() < has as usize && !classes.contains_key(&address) {
                let free = (2..).map(Class).find(|class| !used.contains(class)).unwrap_or(Class(u32::MAX));
                used.insert(free);
                classes.insert(address, free);
            }
        }
        Self { classes, has }
    }

    /// Returns the frontend of a service.
    ///
    /// # Errors
    /// The reason why the service cannot be served, as one sentence.
    pub(super) fn frontend(&self, key: ServiceKey) -> Result<Frontend, String> {
        let class = match key.address {
            None => Class::HOST,
            Some(address) => match self.classes.get(&address.into()) {
                Some(class) if *class != Class::HOST => *class,
                Some(_) => return Err(format!("virtual address {key} is not served: it belongs to this host")),
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

    /// Adds the writes that give the addresses these classes.
    pub(super) fn put(&self, builder: &mut PlanBuilder<'_>, warnings: &mut Vec<Warning>) {
        let known = builder.tables.addresses();
        let has = builder.tables.capacity.addresses as usize;
        if self.classes.len() > has {
            let classes = self.classes.len();
            let reason = format!("{classes} addresses do not fit: ADDRESSES holds {has}; they stay as they were");
            warnings.push(Warning { app: "addresses".into(), reason });
            return;
        }
        builder.ops.extend(known.keys().filter(|a| !self.classes.contains_key(a)).map(|a| MapOp::DelAddress(*a)));
        let new = self.classes.iter().filter(|(address, class)| known.get(address) != Some(class));
        builder.ops.extend(new.map(|(address, class)| MapOp::PutAddress(*address, *class)));
    }
}
