//! Settings from the command line that hold for all services.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    time::Duration,
};

use crate::{
    model::{Protocol, ServiceKey, Settings, Warning},
    plan::{Desired, Exposed},
};

/// Settings from the command line that hold for all services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GlobalSettings {
    /// The maxconn of services that have none of their own; 0 for no limit.
    pub max_connections: u32,
    /// The paths of cgroups whose programs are bypassed.
    pub excluded: BTreeSet<String>,
    /// Which services remote clients may use.
    pub exposed: Exposed,
    /// The ports that may be service ports on this host; `None` for all.
    pub service_ports: Option<Vec<RangeInclusive<u16>>>,
    /// The TCP port of the agent's status endpoint, which is never a service port.
    pub status_port: Option<u16>,
    /// How long after its start a task without a check is new: its backends are probed before their first use. Zero for
    /// never.
    pub first_answer: Duration,
}

impl GlobalSettings {
    /// Returns the ids of the existing cgroups that these settings or allow lists of `services` name, by path.
    pub(crate) fn cgroups<'a>(
        &'a self,
        services: impl Iterator<Item = &'a Settings>,
        id: impl Fn(&str) -> Option<u64>,
    ) -> BTreeMap<String, u64> {
        let paths: BTreeSet<&str> =
            services.flat_map(Settings::cgroups).chain(self.excluded.iter().map(String::as_str)).collect();
        paths.into_iter().filter_map(|path| Some((path.to_owned(), id(path)?))).collect()
    }

    /// Applies the settings to the desired state. Returns warnings about services that are left out, and about cgroups that
    /// do not exist.
    pub(super) fn apply(&self, desired: &mut Desired, cgroups: BTreeMap<String, u64>) -> Vec<Warning> {
        desired.max_connections = self.max_connections;
        desired.exposed = self.exposed;
        desired.excluded = self.excluded.iter().filter_map(|path| cgroups.get(path).copied()).collect();
        let missing = self.excluded.iter().filter(|path| !cgroups.contains_key(*path));
        let warning = |path: &String| {
            let reason = format!("--exclude-cgroup {path} does not exist, so it excludes nothing; check the path");
            Warning { app: "excluded cgroups".into(), reason }
        };
        let mut warnings: Vec<_> = missing.map(warning).collect();
        desired.cgroups = cgroups;
        desired.services.retain(|key, (_, service)| match self.permits(*key) {
            Ok(()) => true,
            Err(why) => {
                let reason = format!("service port {key} is not served: {why}");
                warnings.push(Warning { app: service.name.clone(), reason });
                false
            }
        });
        warnings
    }

    /// Returns whether there may be a service with this key. Virtual addresses take no port of the host.
    fn permits(&self, key: ServiceKey) -> Result<(), String> {
        let ServiceKey { address: None, port, protocol } = key else { return Ok(()) };
        if protocol == Protocol::Tcp && self.status_port == Some(port) {
            return Err("it is the port of the agent's --status-endpoint".into());
        }
        match &self.service_ports {
            Some(ranges) if !ranges.iter().any(|range| range.contains(&port)) => {
                Err("--service-ports does not permit it".into())
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proxymatic_common::SourceCode;

    use super::*;
    use crate::model::Service;

    #[test]
    fn service_ports_and_status_port_bound_what_is_served() {
        let settings = GlobalSettings {
            service_ports: Some(vec![80..=80, 1024..=9999]),
            status_port: Some(9090),
            ..GlobalSettings::default()
        };
        let virtual_address = ServiceKey { address: Some([11, 0, 0, 1].into()), port: 22, protocol: Protocol::Tcp };
        let hosts = [22, 80, 9090, 9999, 10_000].map(|port| ServiceKey::host(port, Protocol::Tcp));
        let keys = hosts.into_iter().chain([ServiceKey::host(9090, Protocol::Udp), virtual_address]);
        let service = |key| (key, (SourceCode::MARATHON, Service { name: "/a".into(), ..Service::default() }.into()));
        let mut desired = Desired { services: keys.map(service).collect(), ..Desired::default() };
        let warnings = settings.apply(&mut desired, BTreeMap::new());
        let served: Vec<_> = desired.services.keys().map(ToString::to_string).collect();
        assert_eq!(served, ["80/tcp", "9090/udp", "9999/tcp", "11.0.0.1:22/tcp"]);
        let reasons: Vec<_> = warnings.iter().map(|it| format!("{}: {}", it.app, it.reason)).collect();
        assert_eq!(
            reasons,
            [
                "/a: service port 22/tcp is not served: --service-ports does not permit it",
                "/a: service port 9090/tcp is not served: it is the port of the agent's --status-endpoint",
                "/a: service port 10000/tcp is not served: --service-ports does not permit it",
            ]
        );
    }
}
