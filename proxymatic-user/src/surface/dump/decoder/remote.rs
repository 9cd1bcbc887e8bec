//! Decodes the maps for remote clients.

use std::net::{IpAddr, SocketAddr};

use proxymatic_common::{Address, CtEntry, CtFlags, CtProgress, FiveTuple, InterfaceKind, Port};
use serde_json::{Value, json};

use super::{super::Dump, Decoder, ago, protocol};
use crate::dataplane::{Error, kernel::ConntrackMaps};

impl Decoder<'_> {
    /// `CONNTRACK` or `CT_HALF_OPEN`: the two entries of each connection.
    pub(super) fn connections(&self, open: bool) -> Result<Dump, Error> {
        let mut rows = Vec::new();
        ConntrackMaps::open(self.pins)?.each_entry(open, |key, entry| rows.push(self.entry(key, entry)))?;
        let columns = &[
            "protocol",
            "source",
            "destination",
            "new_source",
            "new_destination",
            "direction",
            "progress",
            "age_s",
            "seen_s_ago",
            "service",
            "backend",
            "generation",
            "name",
        ];
        Ok(Dump { columns, rows }.sorted())
    }

    fn entry(&self, key: &FiveTuple, entry: &CtEntry) -> Vec<Value> {
        let translated = &entry.translated;
        let direction = if entry.flags.has(CtFlags::REPLY) { "reply" } else { "request" };
        let direction =
            if entry.flags.has(CtFlags::LOCAL_BACKEND) { format!("{direction},local") } else { direction.into() };
        let named = [
            (CtProgress::ANSWERED, "answered"),
            (CtProgress::FINISHED, "finished"),
            (CtProgress::RESET, "reset"),
            (CtProgress::CLOSED, "closed"),
        ];
        let progress: Vec<_> =
            named.into_iter().filter(|(bit, _)| entry.progress().has(*bit)).map(|(_, name)| name).collect();
        vec![
            protocol(key.protocol),
            socket(key.source, key.source_port),
            socket(key.destination, key.destination_port),
            socket(translated.source, translated.source_port),
            socket(translated.destination, translated.destination_port),
            json!(direction),
            json!(progress.join(",")),
            ago(entry.start),
            ago(entry.last_seen),
            json!(entry.service),
            json!(entry.backend),
            json!(entry.generation),
            self.service(entry.service),
        ]
    }

    /// `FRAGMENTS`.
    pub(super) fn fragments(&self) -> Result<Dump, Error> {
        let rows = ConntrackMaps::open(self.pins)?.fragments()?.into_iter().map(|(key, ports)| {
            vec![
                protocol(key.protocol),
                socket(key.source, ports.source_port),
                socket(key.destination, ports.destination_port),
                json!(key.id),
                ago(ports.at),
            ]
        });
        let columns = &["protocol", "source", "destination", "id", "seen_s_ago"];
        Ok(Dump { columns, rows: rows.collect() }.sorted())
    }

    /// `INTERFACES`.
    pub(super) fn interfaces(&self) -> Result<Dump, Error> {
        let address = |it: Address| if it == Address::ZERO { Value::Null } else { json!(IpAddr::from(it)) };
        let rows = ConntrackMaps::open(self.pins)?.interfaces()?.into_iter().map(|(index, it)| {
            let kind = match it.kind {
                InterfaceKind::ATTACHED => "attached",
                InterfaceKind::ACCELERATED => "accelerated",
                InterfaceKind::CONTAINERS => "containers",
                _ => "unknown",
            };
            vec![json!(index), json!(kind), json!(it.mtu), address(it.v4), address(it.v6)]
        });
        Ok(Dump { columns: &["interface", "kind", "mtu", "v4", "v6"], rows: rows.collect() }.sorted())
    }

    /// `REPLY_PORTS`.
    pub(super) fn reply_ports(&self) -> Result<Dump, Error> {
        let row = |(port, of): (u16, u8)| vec![json!(port), protocol(of)];
        let rows = ConntrackMaps::open(self.pins)?.reply_ports()?.into_iter().map(row).collect();
        Ok(Dump { columns: &["port", "protocol"], rows })
    }
}

fn socket(address: Address, port: Port) -> Value {
    json!(SocketAddr::new(address.into(), port.get()))
}
