//! From what each source says to what the maps should say: of two that name one service, the one that comes first has
//! it whole. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use proxymatic_common::{Class, PROTOCOL_TCP, SourceCode};

use crate::{
    model::{Protocol, Service, ServiceKey, Snapshot, Warning},
    plan::{Desired, MapState},
    source::SourceId,
};

/// What the maps should say, and which services are not in it though a source has them.
///
/// `None` is a source that has not answered yet. While there is one, what the maps hold of it stays, and what they hold
/// of sources that are no longer there too: it may be what that one is going to say.
pub(crate) fn merge(
    said: &BTreeMap<SourceId, Option<&Snapshot>>,
    addresses: &BTreeSet<IpAddr>,
    tables: &MapState,
) -> (Desired, Vec<Warning>) {
    let mut services: BTreeMap<ServiceKey, (SourceId, &Arc<Service>)> = BTreeMap::new();
    let mut warnings = Vec::new();
    for (source, snapshot) in said.iter().rev() {
        for (key, service) in snapshot.iter().flat_map(|snapshot| &snapshot.services) {
            if let Some((first, winner)) = services.get(key) {
                let reason = format!(
                    "service port {key} of {source} is not used: {first}, which comes first, has it for {}",
                    winner.name
                );
                warnings.push(Warning { app: service.name.clone(), reason });
            } else {
                services.insert(*key, (*source, service));
            }
        }
    }
    let waits_for = |source: SourceId| said.get(&source).is_some_and(Option::is_none);
    let mut silent = BTreeSet::new();
    if said.values().any(Option::is_none) {
        let answered = |source: &SourceId| said.get(source).is_some_and(Option::is_some);
        silent.extend(SourceId::ALL.into_iter().filter(|source| !answered(source)).map(SourceId::code));
        for (key, _, code) in held(tables) {
            let Some(owner) = SourceId::ALL.into_iter().find(|source| source.code() == code) else { continue };
            if waits_for(owner)
                && let Some((source, service)) = services.get(&key)
                && *source < owner
            {
                let reason = format!(
                    "service port {key} of {source} is not used yet: {owner}, which comes first, had it and has not \
                     answered since this agent started"
                );
                warnings.push(Warning { app: service.name.clone(), reason });
                services.remove(&key);
            }
        }
    }
    let owned =
        |(key, (source, service)): (ServiceKey, (SourceId, &Arc<Service>))| (key, (source.code(), Arc::clone(service)));
    let services = services.into_iter().map(owned).collect();
    (Desired { addresses: addresses.clone(), services, unanswered: silent, ..Desired::default() }, warnings)
}

/// The services that the maps hold, by what leads to them: their ids, and whose they are.
pub(super) fn held(tables: &MapState) -> impl Iterator<Item = (ServiceKey, u32, SourceCode)> {
    let virtual_addresses: BTreeMap<Class, IpAddr> =
        tables.addresses().iter().map(|(address, class)| (*class, (*address).into())).collect();
    tables.frontends().iter().filter_map(move |(frontend, id)| {
        let address = match frontend.class {
            Class::HOST => None,
            class => Some(*virtual_addresses.get(&class)?),
        };
        let protocol = if frontend.protocol == PROTOCOL_TCP { Protocol::Tcp } else { Protocol::Udp };
        let key = ServiceKey { address, port: frontend.port.get(), protocol };
        Some((key, *id, tables.services().get(id)?.settings.source))
    })
}
