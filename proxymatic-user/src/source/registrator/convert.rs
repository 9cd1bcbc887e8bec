//! Converts keys and values to a snapshot. Pure and total: a key that cannot be read is left out with a warning.
//!
//! `<prefix>/<service>/<host>:<container>:<exposed port>[:<protocol>]` = `<address>:<port>`. The exposed port is the
//! service port. Services that name one service port are one service, as in `meltwater/proxymatic`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU16,
};

use super::wire::Entry;
use crate::model::{Backend, Protocol, Service, ServiceKey, Snapshot, State, Warning, Weight};

/// Returns the names of hosts in the values that need an address.
pub fn host_names(entries: &[Entry]) -> impl Iterator<Item = &str> {
    let hosts = entries.iter().filter_map(|entry| Some(host_and_port(&entry.value).ok()?.0));
    hosts.filter(|host| host.parse::<IpAddr>().is_err())
}

/// Returns the services of the entries below the prefix.
///
/// `hosts` has the address of each of [`host_names`], or why there is none.
///
/// A service is left out if a container has the service port on its own host, unless `expose_host`. That is the rule of
/// `meltwater/proxymatic`: clients of that port reach the container already.
pub fn convert(
    entries: &[Entry],
    prefix: &str,
    hosts: &BTreeMap<String, Result<IpAddr, String>>,
    expose_host: bool,
) -> Snapshot {
    let mut builders: BTreeMap<ServiceKey, ServiceBuilder<'_>> = BTreeMap::new();
    let mut warnings = BTreeSet::new();
    for entry in entries {
        match parse_entry(entry, prefix, hosts) {
            Ok(Member { key, service, task, address, port }) => {
                let builder = builders.entry(key).or_default();
                builder.names.insert(service);
                builder.members.insert((task, address, port));
            }
            Err(reason) => {
                warnings.insert(Warning { app: entry.key.clone(), reason });
            }
        }
    }
    let mut services = BTreeMap::new();
    for (key, builder) in builders {
        let name = builder.names.first().copied().unwrap_or_default().to_owned();
        if builder.names.len() > 1 {
            let all = builder.names.iter().copied().collect::<Vec<_>>().join(" and ");
            let reason = format!(
                "service port {key} is exposed by {all}; their containers share it; if that is not intended, let them \
                 expose different ports"
            );
            warnings.insert(Warning { app: name.clone(), reason });
        }
        if !expose_host && builder.members.iter().any(|(_, _, port)| *port == key.port) {
            let reason = format!(
                "service port {key} is not served: a container has it on its own host; to serve it on all \
                 hosts, start the agent with --expose-host"
            );
            warnings.insert(Warning { app: name, reason });
            continue;
        }
        services.insert(key, Service { name, backends: builder.backends(), ..Service::default() }.into());
    }
    Snapshot { services, warnings: warnings.into_iter().collect() }
}

#[derive(Default)]
struct ServiceBuilder<'a> {
    names: BTreeSet<&'a str>,
    members: BTreeSet<(&'a str, IpAddr, u16)>,
}

impl ServiceBuilder<'_> {
    fn backends(&self) -> Vec<Backend> {
        let backend = |(task, address, port): &(&str, IpAddr, u16)| Backend {
            task: (*task).to_owned(),
            address: *address,
            port: *port,
            weight: Weight::default(),
            maxconn: 0,
            // registrator removes containers that do not run. It has no health.
            state: State::Active,
        };
        self.members.iter().map(backend).collect()
    }
}

struct Member<'a> {
    key: ServiceKey,
    service: &'a str,
    task: &'a str,
    address: IpAddr,
    port: u16,
}

/// Parses an entry.
fn parse_entry<'a>(
    entry: &'a Entry,
    prefix: &str,
    hosts: &BTreeMap<String, Result<IpAddr, String>>,
) -> Result<Member<'a>, String> {
    let form = || "is not <service>/<host>:<container>:<port>[:<protocol>]; was it written by registrator?".to_owned();
    let below = entry.key.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/')).ok_or_else(form)?;
    let (service, task) = below.split_once('/').ok_or_else(form)?;
    let mut parts = task.split(':');
    let (Some(_), Some(_), Some(exposed), protocol, None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(form());
    };
    if service.is_empty() || task.contains('/') {
        return Err(form());
    }
    let exposed: NonZeroU16 = exposed.parse().map_err(|_| format!("{exposed:?} is not a port, 1 to 65535"))?;
    let protocol = match protocol.map(str::to_ascii_lowercase).as_deref() {
        None | Some("tcp") => Protocol::Tcp,
        Some("udp") => Protocol::Udp,
        Some(other) => return Err(format!("{other:?} is neither tcp nor udp")),
    };
    let (host, port) = host_and_port(&entry.value)?;
    let address = match host.parse() {
        Ok(address) => address,
        Err(_) => match hosts.get(host) {
            Some(Ok(address)) => *address,
            Some(Err(reason)) => return Err(format!("host {host:?} has no address: {reason}")),
            None => return Err(format!("host {host:?} has no address")),
        },
    };
    let key = ServiceKey::host(exposed.get(), protocol);
    Ok(Member { key, service, task, address: address.to_canonical(), port })
}

/// Returns the host and the port of a value.
fn host_and_port(value: &str) -> Result<(&str, u16), String> {
    let wrong = || format!("its value {:?} is not <address>:<port>", value.chars().take(100).collect::<String>());
    let (host, port) = value.trim().rsplit_once(':').ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port: NonZeroU16 = port.parse().map_err(|_| wrong())?;
    // The brackets of an IPv6 address are removed. A name has no colon.
    if host.is_empty() || (host.contains(':') && host.parse::<IpAddr>().is_err()) {
        return Err(wrong());
    }
    Ok((host, port.get()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn entries(pairs: &[(&str, &str)]) -> Vec<Entry> {
        pairs.iter().map(|(key, value)| Entry { key: (*key).into(), value: (*value).into() }).collect()
    }

    fn hosts() -> BTreeMap<String, Result<IpAddr, String>> {
        [("db1".into(), Ok([10, 0, 0, 9].into())), ("gone".into(), Err("no such name".into()))].into()
    }

    fn shown(snapshot: &Snapshot) -> Vec<String> {
        let line = |(key, service): (&ServiceKey, &Arc<Service>)| {
            let backends = service.backends.iter().map(|it| format!("{}@{}:{}", it.task, it.address, it.port));
            format!("{} {key}: {}", service.name, backends.collect::<Vec<_>>().join(" "))
        };
        snapshot.services.iter().map(line).collect()
    }

    #[test]
    fn keys_of_registrator_become_services() {
        let entries = entries(&[
            ("/services/web/host1:web.1:80", "10.0.0.1:31000"),
            ("/services/web/host2:web.2:80", "10.0.0.2:31001"),
            ("/services/dns/host1:dns.1:53:udp", "10.0.0.1:31002"),
            ("/services/db/host1:db.1:5432:TCP", "db1:31003"),
            ("/services/six/host1:six.1:81", "[2001:db8::1]:31004"),
        ]);
        assert_eq!(host_names(&entries).collect::<Vec<_>>(), ["db1"]);
        let snapshot = convert(&entries, "/services", &hosts(), false);
        assert_eq!(snapshot.warnings, []);
        assert_eq!(
            shown(&snapshot),
            [
                "dns 53/udp: host1:dns.1:53:udp@10.0.0.1:31002",
                "web 80/tcp: host1:web.1:80@10.0.0.1:31000 host2:web.2:80@10.0.0.2:31001",
                "six 81/tcp: host1:six.1:81@2001:db8::1:31004",
                "db 5432/tcp: host1:db.1:5432:TCP@10.0.0.9:31003",
            ]
        );
    }

    #[test]
    fn bad_key_is_left_out_with_a_warning() {
        for (key, value, part) in [
            ("/services/web/own-id", "10.0.0.1:1", "written by registrator"),
            ("/services/loose", "10.0.0.1:1", "written by registrator"),
            ("/services/a/b/h:c:80", "10.0.0.1:1", "written by registrator"),
            ("/services/web/h:c:80:udp:x", "10.0.0.1:1", "written by registrator"),
            ("/elsewhere/web/h:c:80", "10.0.0.1:1", "written by registrator"),
            ("/services/web/h:c:0", "10.0.0.1:1", "\"0\" is not a port"),
            ("/services/web/h:c:80:sctp", "10.0.0.1:1", "neither tcp nor udp"),
            ("/services/web/h:c:80", "10.0.0.1", "not <address>:<port>"),
            ("/services/web/h:c:80", ":31000", "not <address>:<port>"),
            ("/services/web/h:c:80", "10.0.0.1:0", "not <address>:<port>"),
            ("/services/web/h:c:80", "gone:31000", "no such name"),
        ] {
            let entries = entries(&[(key, value), ("/services/ok/h:ok:8080", "10.0.0.1:31000")]);
            let snapshot = convert(&entries, "/services", &hosts(), false);
            assert_eq!(shown(&snapshot), ["ok 8080/tcp: h:ok:8080@10.0.0.1:31000"], "{key} = {value}");
            assert_eq!(snapshot.warnings.len(), 1, "{key} = {value}");
            assert_eq!(snapshot.warnings[0].app, key);
            assert!(snapshot.warnings[0].reason.contains(part), "{:?}", snapshot.warnings);
        }
    }

    #[test]
    fn services_on_one_port_are_merged_with_a_warning() {
        let entries = entries(&[("/s/web/h:w:80", "10.0.0.1:1"), ("/s/api/h:a:80", "10.0.0.1:2")]);
        let snapshot = convert(&entries, "/s", &hosts(), true);
        assert_eq!(shown(&snapshot), ["api 80/tcp: h:a:80@10.0.0.1:2 h:w:80@10.0.0.1:1"]);
        assert!(snapshot.warnings[0].reason.starts_with("service port 80/tcp is exposed by api and web"));
    }

    #[test]
    fn service_port_of_a_host_needs_expose_host() {
        let entries = entries(&[("/s/ssh/h:s.1:22", "10.0.0.1:22"), ("/s/ssh/h:s.2:22", "10.0.0.2:31000")]);
        let snapshot = convert(&entries, "/s", &hosts(), false);
        assert!(snapshot.services.is_empty());
        assert!(snapshot.warnings[0].reason.contains("--expose-host"), "{:?}", snapshot.warnings);
        assert_eq!(convert(&entries, "/s", &hosts(), true).services.len(), 1);
    }

    /// Keys and values of any text, and of registrator's form on few ports, so that some are the same.
    fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
        let key = prop_oneof!["\\PC{0,40}", "[ab]/h:[ab]:(0|80|81)(:(tcp|udp|sctp))?"];
        let value = prop_oneof!["\\PC{0,20}", "(10\\.0\\.0\\.[12]|db1|gone):(1|31000)"];
        prop::collection::vec((key, value), 0..8)
    }

    proptest! {
        #[test]
        fn any_key_is_served_or_has_a_warning(pairs in pairs()) {
            let entries: Vec<_> = pairs.into_iter().map(|(key, value)| Entry { key: format!("/s/{key}"), value }).collect();
            let snapshot = convert(&entries, "/s", &hosts(), true);
            for Entry { key, value } in &entries {
                let is_it = |backend: &Backend| {
                    key.ends_with(&format!("/{}", backend.task)) && value.ends_with(&format!(":{}", backend.port))
                };
                let is_served = snapshot.services.values().flat_map(|service| &service.backends).any(is_it);
                let has_warning = snapshot.warnings.iter().any(|warning| warning.app == *key);
                prop_assert!(is_served || has_warning, "{key} = {value}: {snapshot:?}");
            }
        }
    }
}
