//! Merges the snapshots of all sources into one desired state. If two sources name a service, the source with precedence
//! has all of it. Pure.

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

/// Returns the desired state, and warnings about services of sources that are not in it.
///
/// `None` is a source that has not answered yet. Its services in the maps stay, and so do those of sources that are not
/// configured any more: the source may be about to name them.
pub(super) fn merge(
    snapshots: &BTreeMap<SourceId, Option<&Snapshot>>,
    addresses: &BTreeSet<IpAddr>,
    map_state: &MapState,
) -> (Desired, Vec<Warning>) {
    let mut services: BTreeMap<ServiceKey, (SourceId, &Arc<Service>)> = BTreeMap::new();
    let mut warnings = Vec::new();
    for (source, snapshot) in snapshots.iter().rev() {
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
    let is_awaited = |source: SourceId| snapshots.get(&source).is_some_and(Option::is_none);
    let mut unanswered = BTreeSet::new();
    if snapshots.values().any(Option::is_none) {
        let answered = |source: &SourceId| snapshots.get(source).is_some_and(Option::is_some);
        unanswered.extend(SourceId::ALL.into_iter().filter(|source| !answered(source)).map(SourceId::code));
        for (key, _, code) in services_in(map_state) {
            let Some(owner) = SourceId::ALL.into_iter().find(|source| source.code() == code) else { continue };
            if is_awaited(owner)
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
    (Desired { addresses: addresses.clone(), services, unanswered, ..Desired::default() }, warnings)
}

/// Returns the services in the maps: key, id and source of each.
pub(super) fn services_in(map_state: &MapState) -> impl Iterator<Item = (ServiceKey, u32, SourceCode)> {
    let virtual_addresses: BTreeMap<Class, IpAddr> =
        map_state.addresses().iter().map(|(address, class)| (*class, (*address).into())).collect();
    map_state.frontends().iter().filter_map(move |(frontend, id)| {
        let address = match frontend.class {
            Class::HOST => None,
            class => Some(*virtual_addresses.get(&class)?),
        };
        let protocol = if frontend.protocol == PROTOCOL_TCP { Protocol::Tcp } else { Protocol::Udp };
        let key = ServiceKey { address, port: frontend.port.get(), protocol };
        Some((key, *id, map_state.services().get(id)?.settings.source))
    })
}
