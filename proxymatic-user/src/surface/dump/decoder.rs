//! Decodes the entries of each map into rows.

mod listeners;
mod remote;

use std::{
    net::{IpAddr, SocketAddr},
    sync::LazyLock,
};

use proxymatic_common::{
    Address, BackendState, Features, HookFlags, Loopback, Name, PROTOCOL_TCP, PROTOCOL_UDP, Reason, Service,
    SourceRangeKey,
    maps::{self as declared, MapDef as _},
};
use serde_json::{Value, json};

use super::Dump;
use crate::{
    dataplane::{
        Error, MapReader as _,
        kernel::{Maps, Pins, affinities, monotonic},
    },
    plan::MapState,
    sockets::flows,
    surface::cgroups::Cgroups,
};

/// Decodes a map by its name. `None` if the map cannot be read without consuming its content.
///
/// # Errors
/// The map cannot be read.
pub fn dump(pins: &Pins, maps: &Maps, name: &str) -> Result<Option<Dump>, Error> {
    let mut decoder = Decoder { pins, maps, tables: maps.tables()?, cgroups: Cgroups::default() };
    Ok(match name {
        declared::ConfigMap::NAME => Some(decoder.config()),
        declared::Ports::NAME => Some(decoder.ports()),
        declared::Addresses::NAME => Some(decoder.addresses()?),
        declared::Frontends::NAME => Some(decoder.frontends()?),
        declared::SlotRanges::NAME => Some(decoder.slot_ranges()),
        declared::Services::NAME => Some(decoder.services()),
        declared::ServiceStatsMap::NAME => Some(decoder.service_stats()),
        declared::Slots::NAME => Some(decoder.slots()),
        declared::Backends::NAME => Some(decoder.backends()),
        declared::BackendStatsMap::NAME => Some(decoder.backend_stats()),
        declared::Sockets::NAME => Some(decoder.sockets()?),
        declared::Affinities::NAME => Some(decoder.affinities()?),
        declared::SourceRanges::NAME => Some(decoder.allowed()?),
        declared::SourceCgroups::NAME => Some(decoder.allowed_cgroups()?),
        declared::NetnsAddressesMap::NAME => Some(decoder.netns_addresses()?),
        declared::Excluded::NAME => Some(decoder.excluded()?),
        declared::Listeners::NAME => Some(decoder.listeners()?),
        declared::DirectPeers::NAME => Some(decoder.direct_peers()?),
        declared::CountersMap::NAME => Some(decoder.counters()),
        declared::Conntrack::NAME => Some(decoder.connections(true)?),
        declared::CtHalfOpen::NAME => Some(decoder.connections(false)?),
        declared::Fragments::NAME => Some(decoder.fragments()?),
        declared::Interfaces::NAME => Some(decoder.interfaces()?),
        declared::ReplyPortsMap::NAME => Some(decoder.reply_ports()?),
        declared::ServiceNames::NAME => Some(names(maps.rows::<declared::ServiceNames>()?)),
        declared::BackendNames::NAME => Some(names(maps.rows::<declared::BackendNames>()?)),
        declared::Drained::NAME => Some(decoder.drained()?),
        _ => None,
    })
}

struct Decoder<'a> {
    pins: &'a Pins,
    maps: &'a Maps,
    tables: MapState,
    cgroups: Cgroups,
}

impl Decoder<'_> {
    fn service(&self, id: u32) -> Value {
        self.tables.services().get(&id).map_or(Value::Null, |entry| json!(entry.name))
    }

    /// Returns where a backend listens, if the id still has the owner of this generation.
    fn backend(&self, id: u32, generation: Option<u32>) -> Value {
        let entry = self.tables.backends().get(&id).map(|entry| entry.backend);
        let entry = entry.filter(|backend| generation.is_none_or(|generation| backend.generation == generation));
        entry.map_or(Value::Null, |it| json!(SocketAddr::new(it.address.into(), it.port.get())))
    }

    fn config(&self) -> Dump {
        let config = self.maps.config();
        let loopback = match config.loopback {
            Loopback::NONE => "none",
            Loopback::HOST => "host",
            Loopback::ALL => "all",
            _ => "unknown",
        };
        let fields = [
            ("abi", json!(config.abi)),
            ("loopback", json!(loopback)),
            ("host_netns", json!(config.host_netns)),
            ("cgroup", json!(config.cgroup)),
            ("heartbeat_s_ago", ago(config.heartbeat)),
            ("synced_s_ago", ago(config.synced)),
            ("agent", json!(config.agent.name())),
            ("pid", json!(config.pid)),
            ("agent_tgid", json!(config.agent_tgid)),
            ("bypass_mark", json!(config.bypass_mark)),
            ("checks_listeners", json!(config.hook_flags.has(HookFlags::LISTENERS))),
            ("root_wins", json!(config.hook_flags.has(HookFlags::ROOT_WINS))),
            ("checks_excluded", json!(config.hook_flags.has(HookFlags::EXCLUDED))),
            ("event_sample_rate", json!(config.event_sample_rate)),
            ("snat_first", json!(config.snat_first)),
            ("snat_last", json!(config.snat_last)),
            ("first_unprivileged_port", json!(config.first_unprivileged_port)),
        ];
        Dump { columns: &["field", "value"], rows: fields.map(|(name, value)| vec![json!(name), value]).into() }
    }

    fn ports(&self) -> Dump {
        let of_word = |(word, bits): (u32, u64)| {
            let (base, protocol) = if word < 1024 { (0, "tcp") } else { (1024, "udp") };
            let set = (0..64_u32).filter(move |bit| bits & 1 << bit != 0);
            set.map(move |bit| vec![json!((word - base) * 64 + bit), json!(protocol)])
        };
        Dump { columns: &["port", "protocol"], rows: self.maps.port_words().flat_map(of_word).collect() }
    }

    fn addresses(&self) -> Result<Dump, Error> {
        let row = |(address, class)| vec![json!(IpAddr::from(address)), json!(class)];
        let rows = self
            .maps
            .rows::<declared::Addresses>()?
            .into_iter()
            .map(|(address, class)| row((address, class.0)))
            .collect();
        Ok(Dump { columns: &["address", "class"], rows }.sorted())
    }

    fn frontends(&self) -> Result<Dump, Error> {
        let rows = self.maps.rows::<declared::Frontends>()?.into_iter().map(|(frontend, id)| {
            let class = json!(frontend.class.0);
            vec![class, json!(frontend.port.get()), protocol(frontend.protocol), json!(id), self.service(id)]
        });
        Ok(Dump { columns: &["class", "port", "protocol", "service", "name"], rows: rows.collect() }.sorted())
    }

    fn slot_ranges(&self) -> Dump {
        let rows = self.maps.slot_ranges().map(|(id, range)| {
            vec![json!(id), json!(range.generation()), json!(range.length()), json!(range.base()), self.service(id)]
        });
        Dump { columns: &["service", "generation", "length", "base", "name"], rows: rows.collect() }
    }

    fn services(&self) -> Dump {
        static COLUMNS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
            let numbers = Service::FREE.numbers().map(|number| number.column);
            ["service", "source", "policy", "features"].into_iter().chain(numbers).chain(["name"]).collect()
        });
        let rows = self.maps.services().map(|(id, it)| {
            let named = Features::all().into_iter().filter(|(feature, ..)| it.features.has(*feature));
            let features: Vec<_> = named.map(|(_, name, _)| name).collect();
            let first =
                [json!(id), json!(it.source.name()), json!(it.policy.name()), json!(features.join(","))].into_iter();
            first.chain(it.numbers().map(|number| json!(number.value))).chain([self.service(id)]).collect()
        });
        Dump { columns: &COLUMNS, rows: rows.collect() }
    }

    fn service_stats(&self) -> Dump {
        let ids = self.tables.services().keys();
        let rows = ids.filter_map(|id| Some((id, self.maps.service_load(*id)?))).map(|(id, load)| {
            vec![
                json!(id),
                json!(load.opened.get()),
                json!(load.closed.get()),
                json!(load.active()),
                json!(load.refused.iter().map(proxymatic_common::Cell64::get).sum::<u64>()),
                json!(load.bind_seq.get()),
                json!(load.no_listener_seq.get()),
                self.service(*id),
            ]
        });
        let columns = &["service", "opened", "closed", "active", "refused", "bind_seq", "no_listener_seq", "name"];
        Dump { columns, rows: rows.collect() }
    }

    fn slots(&self) -> Dump {
        let rows = self.maps.slots().map(|(index, slot)| {
            let (backend, generation) = (slot.backend(), slot.generation());
            vec![json!(index), json!(backend), json!(generation), self.backend(backend, Some(generation))]
        });
        Dump { columns: &["slot", "backend", "generation", "at"], rows: rows.collect() }
    }

    fn backends(&self) -> Dump {
        let rows = self.maps.backends().map(|(id, it)| {
            let free = it.state == BackendState::FREE;
            vec![
                json!(id),
                if free { Value::Null } else { json!(SocketAddr::new(it.address.into(), it.port.get())) },
                json!(it.state.name()),
                json!(it.source_state.name()),
                json!(it.generation),
                json!(it.weight),
                json!(it.maxconn),
                json!(it.local != 0),
                if free { Value::Null } else { json!(it.service) },
                if free { Value::Null } else { self.service(it.service) },
            ]
        });
        let columns =
            &["backend", "at", "state", "source_state", "generation", "weight", "maxconn", "local", "service", "name"];
        Dump { columns, rows: rows.collect() }
    }

    fn backend_stats(&self) -> Dump {
        let now = monotonic();
        let ids = self.tables.backends().keys();
        let rows = ids.filter_map(|id| Some((id, self.maps.load(*id)?))).map(|(id, load)| {
            vec![
                json!(id),
                json!(load.opened.get()),
                json!(load.closed.get()),
                json!(load.active()),
                json!(load.established.get()),
                json!(load.failed.get()),
                json!(load.consecutive_failures.get()),
                json!(load.ejected_until.get().saturating_sub(now) / 1_000_000),
                json!(load.rtt_us.get()),
                self.backend(*id, None),
            ]
        });
        let columns = &[
            "backend",
            "opened",
            "closed",
            "active",
            "established",
            "failed",
            "consecutive",
            "ejected_ms",
            "rtt_us",
            "at",
        ];
        Dump { columns, rows: rows.collect() }
    }

    fn sockets(&self) -> Result<Dump, Error> {
        let rows = flows(self.pins)?.flows.into_iter().filter(|flow| flow.client.is_none()).map(|flow| {
            let made = flow.translation;
            vec![
                protocol(flow.protocol),
                json!(SocketAddr::new(flow.local.into(), flow.local_port.get())),
                json!(SocketAddr::new(made.destination.into(), made.destination_port.get())),
                json!(SocketAddr::new(made.backend_address.into(), made.backend_port.get())),
                json!(made.backend),
                json!(made.generation),
                json!(made.counted != 0),
                json!(flow.process.map(|process| process.pid)),
            ]
        });
        let columns =
            &["protocol", "local", "destination", "backend_address", "backend", "generation", "counted", "pid"];
        Ok(Dump { columns, rows: rows.collect() }.sorted())
    }

    fn affinities(&mut self) -> Result<Dump, Error> {
        let mut rows = Vec::new();
        for (key, value) in affinities(self.pins)? {
            let path = json!(self.cgroups.path(key.client.cgroup));
            rows.push(vec![
                json!(key.service),
                json!(key.client.cgroup),
                json!(key.client.netns),
                json!(value.backend),
                json!(value.generation),
                ago(value.at),
                self.backend(value.backend, Some(value.generation)),
                path,
            ]);
        }
        let columns = &["service", "cgroup", "netns", "backend", "generation", "used_s_ago", "at", "path"];
        Ok(Dump { columns, rows }.sorted())
    }

    fn allowed(&self) -> Result<Dump, Error> {
        let rows = self.maps.source_ranges()?.into_iter().map(|SourceRangeKey { prefix_len, network }| {
            let before = if network.address.is_v4() { 32 + 96 } else { 32 };
            let text = format!("{}/{}", IpAddr::from(network.address), prefix_len.saturating_sub(before));
            vec![json!(network.service), json!(text), self.service(network.service)]
        });
        Ok(Dump { columns: &["service", "network", "name"], rows: rows.collect() }.sorted())
    }

    fn allowed_cgroups(&mut self) -> Result<Dump, Error> {
        let mut rows = Vec::new();
        for (key, _) in self.maps.rows::<declared::SourceCgroups>()? {
            let path = json!(self.cgroups.path(key.cgroup));
            rows.push(vec![json!(key.service), json!(key.cgroup), path, self.service(key.service)]);
        }
        Ok(Dump { columns: &["service", "cgroup", "path", "name"], rows }.sorted())
    }

    fn netns_addresses(&self) -> Result<Dump, Error> {
        let address = |address: Address| (address != Address::ZERO).then(|| json!(IpAddr::from(address)));
        let rows =
            self.maps.rows::<declared::NetnsAddressesMap>()?.into_iter().map(|(netns, addresses)| {
                vec![json!(netns), json!(address(addresses.v4)), json!(address(addresses.v6))]
            });
        Ok(Dump { columns: &["netns", "v4", "v6"], rows: rows.collect() }.sorted())
    }

    fn excluded(&mut self) -> Result<Dump, Error> {
        let mut rows = Vec::new();
        for (cgroup, _) in self.maps.rows::<declared::Excluded>()? {
            rows.push(vec![json!(cgroup), json!(self.cgroups.path(cgroup))]);
        }
        Ok(Dump { columns: &["cgroup", "path"], rows }.sorted())
    }

    fn counters(&self) -> Dump {
        let row = |reason: &Reason| {
            vec![json!(reason.name()), json!(self.maps.count(*reason)), json!(reason.describe().trim_end_matches('.'))]
        };
        Dump { columns: &["verdict", "count", "meaning"], rows: Reason::ALL.iter().map(row).collect() }
    }

    fn drained(&self) -> Result<Dump, Error> {
        let rows = self
            .maps
            .drained()?
            .into_iter()
            .map(|(id, generation)| vec![json!(id), json!(generation), self.backend(id, Some(generation))]);
        Ok(Dump { columns: &["backend", "generation", "at"], rows: rows.collect() })
    }
}

fn names(names: Vec<(u32, Name)>) -> Dump {
    let rows = names.into_iter().map(|(id, name)| vec![json!(id), json!(name.to_text())]).collect();
    Dump { columns: &["id", "name"], rows }.sorted()
}

fn protocol(number: u8) -> Value {
    match number {
        PROTOCOL_TCP => json!("tcp"),
        PROTOCOL_UDP => json!("udp"),
        other => json!(other),
    }
}

/// Returns the seconds since a time of the monotonic clock; null for never.
fn ago(at: u64) -> Value {
    if at == 0 { Value::Null } else { json!((monotonic().saturating_sub(at) / 1_000_000) as f64 / 1000.0) }
}
