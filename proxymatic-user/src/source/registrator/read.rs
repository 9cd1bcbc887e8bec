//! From keys and values to a snapshot. Pure and total: a key that cannot be read costs itself, and is warned of.
//!
//! `<prefix>/<service>/<host>:<container>:<exposed port>[:<protocol>]` = `<address>:<port>`. The exposed port is the
//! service port. Services that name one service port are one service, as in `meltwater/proxymatic`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU16,
};

use super::wire::Entry;
use crate::model::{Backend, Protocol, Service, ServiceKey, Settings, Snapshot, State, Warning, Weight};

/// The names in the values that need an address.
pub fn names(entries: &[Entry]) -> impl Iterator<Item = &str> {
    let hosts = entries.iter().filter_map(|entry| Some(place(&entry.value).ok()?.0));
    hosts.filter(|host| host.parse::<IpAddr>().is_err())
}

/// Everything that was found under the prefix.
///
/// `hosts` has the address of each of [`names`], or why there is none.
///
/// A service that a container has on its own host on the very service port is left out unless `expose_host`, as
/// `meltwater/proxymatic` leaves it out: clients of that port have it already.
pub fn read(
    entries: &[Entry],
    prefix: &str,
    hosts: &BTreeMap<String, Result<IpAddr, String>>,
    expose_host: bool,
) -> Snapshot {
    let mut drafts: BTreeMap<ServiceKey, ServiceBuilder<'_>> = BTreeMap::new();
    let mut warnings = BTreeSet::new();
    for entry in entries {
        match replica(entry, prefix, hosts) {
            Ok(Replica { key, service, task, address, port }) => {
                let draft = drafts.entry(key).or_default();
                draft.names.insert(service);
                draft.places.insert((task, address, port));
            }
            Err(reason) => {
                warnings.insert(Warning { app: entry.key.clone(), reason });
            }
        }
    }
    let mut services = BTreeMap::new();
    for (key, draft) in drafts {
        let name = draft.names.first().copied().unwrap_or_default().to_owned();
        if draft.names.len() > 1 {
            let all = draft.names.iter().copied().collect::<Vec<_>>().join(" and ");
            let reason = format!(
                "service port {key} is exposed by {all}; their containers share it; if that is not meant, let them \
                 expose different ports"
            );
            warnings.insert(Warning { app: name.clone(), reason });
        }
        if !expose_host && draft.places.iter().any(|(_, _, port)| *port == key.port) {
            let reason = format!(
                "service port {key} is not served: a container has it on its own host; if it is to be served on all \
                 hosts, start the agent with --expose-host"
            );
            warnings.insert(Warning { app: name, reason });
            continue;
        }
        services.insert(key, Service { name, backends: draft.backends(), settings: Settings::default() }.into());
    }
    Snapshot { services, warnings: warnings.into_iter().collect() }
}

#[derive(Default)]
struct ServiceBuilder<'a> {
    names: BTreeSet<&'a str>,
    places: BTreeSet<(&'a str, IpAddr, u16)>,
}

impl ServiceBuilder<'_> {
    fn backends(&self) -> Vec<Backend> {
        let backend = |(task, address, port): &(&str, IpAddr, u16)| Backend {
            task: (*task).to_owned(),
            address: *address,
            port: *port,
            weight: Weight::default(),
            maxconn: 0,
            // registrator takes away what does not run; of health it says nothing.
            state: State::Active,
        };
        self.places.iter().map(backend).collect()
    }
}

struct Replica<'a> {
    key: ServiceKey,
    service: &'a str,
    task: &'a str,
    address: IpAddr,
    port: u16,
}

fn replica<'a>(
    entry: &'a Entry,
    prefix: &str,
    hosts: &BTreeMap<String, Result<IpAddr, String>>,
) -> Result<Replica<'a>, String> {
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
    let (host, port) = place(&entry.value)?;
    let address = match host.parse() {
        Ok(address) => address,
        Err(_) => match hosts.get(host) {
            Some(Ok(address)) => *address,
            Some(Err(reason)) => return Err(format!("host {host:?} has no address: {reason}")),
            None => return Err(format!("host {host:?} has no address")),
        },
    };
    let key = ServiceKey::host(exposed.get(), protocol);
    Ok(Replica { key, service, task, address: address.to_canonical(), port })
}

/// Host and port of a value.
fn place(value: &str) -> Result<(&str, u16), String> {
    let wrong = || format!("its value {:?} is not <address>:<port>", value.chars().take(100).collect::<String>());
    let (host, port) = value.trim().rsplit_once(':').ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port: NonZeroU16 = port.parse().map_err(|_| wrong())?;
    // An address by its numbers has colons only in brackets, which are off; a name has none.
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
        assert_eq!(names(&entries).collect::<Vec<_>>(), ["db1"]);
        let snapshot = read(&entries, "/services", &hosts(), false);
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
    fn one_bad_key_costs_itself_and_is_warned_of() {
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
            let snapshot = read(&entries, "/services", &hosts(), false);
            assert_eq!(shown(&snapshot), ["ok 8080/tcp: h:ok:8080@10.0.0.1:31000"], "{key} = {value}");
            assert_eq!(snapshot.warnings.len(), 1, "{key} = {value}");
            assert_eq!(snapshot.warnings[0].app, key);
            assert!(snapshot.warnings[0].reason.contains(part), "{:?}", snapshot.warnings);
        }
    }

    #[test]
    fn services_that_expose_one_port_are_one_and_that_is_said() {
        let entries = entries(&[("/s/web/h:w:80", "10.0.0.1:1"), ("/s/api/h:a:80", "10.0.0.1:2")]);
        let snapshot = read(&entries, "/s", &hosts(), true);
        assert_eq!(shown(&snapshot), ["api 80/tcp: h:a:80@10.0.0.1:2 h:w:80@10.0.0.1:1"]);
        assert!(snapshot.warnings[0].reason.starts_with("service port 80/tcp is exposed by api and web"));
    }

    #[test]
    fn what_a_container_has_on_its_own_host_on_the_same_port_is_served_only_if_asked_for() {
        let entries = entries(&[("/s/ssh/h:s.1:22", "10.0.0.1:22"), ("/s/ssh/h:s.2:22", "10.0.0.2:31000")]);
        let snapshot = read(&entries, "/s", &hosts(), false);
        assert!(snapshot.services.is_empty());
        assert!(snapshot.warnings[0].reason.contains("--expose-host"), "{:?}", snapshot.warnings);
        assert_eq!(read(&entries, "/s", &hosts(), true).services.len(), 1);
    }

    /// Keys and values of any text, and such of registrator's form that meet each other.
    fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
        let key = prop_oneof!["\\PC{0,40}", "[ab]/h:[ab]:(0|80|81)(:(tcp|udp|sctp))?"];
        let value = prop_oneof!["\\PC{0,20}", "(10\\.0\\.0\\.[12]|db1|gone):(1|31000)"];
        prop::collection::vec((key, value), 0..8)
    }

    proptest! {
        #[test]
        fn any_key_is_served_or_warned_of(pairs in pairs()) {
            let entries: Vec<_> = pairs.into_iter().map(|(key, value)| Entry { key: format!("/s/{key}"), value }).collect();
            let snapshot = read(&entries, "/s", &hosts(), true);
            for Entry { key, value } in &entries {
                let is_it = |backend: &Backend| {
                    key.ends_with(&format!("/{}", backend.task)) && value.ends_with(&format!(":{}", backend.port))
                };
                let is_served = snapshot.services.values().flat_map(|service| &service.backends).any(is_it);
                let is_warned_of = snapshot.warnings.iter().any(|warning| warning.app == *key);
                prop_assert!(is_served || is_warned_of, "{key} = {value}: {snapshot:?}");
            }
        }
    }
}
