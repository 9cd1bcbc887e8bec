//! Decodes the maps of listeners.

use std::net::IpAddr;

use proxymatic_common::{ListenerFlags, maps as declared};
use serde_json::json;

use super::{super::Dump, Decoder, ago, protocol};
use crate::dataplane::{Error, MapReader as _, kernel::direct_peers};

impl Decoder<'_> {
    /// `LISTENERS`: listeners of the host, with their interfaces.
    pub(super) fn listeners(&self) -> Result<Dump, Error> {
        let interfaces = |flags: ListenerFlags| {
            let names = [
                (ListenerFlags::ON_LOOPBACK, "loopback"),
                (ListenerFlags::ON_INTERFACE, "other"),
                (ListenerFlags::ANY_INTERFACE, "any"),
                (ListenerFlags::NEW, "new"),
            ];
            names.into_iter().filter(|(flag, _)| flags.has(*flag)).map(|(_, name)| name).collect::<Vec<_>>().join(",")
        };
        let rows = self.maps.rows::<declared::Listeners>()?.into_iter().map(|(key, entry)| {
            vec![
                json!(IpAddr::from(key.address)),
                json!(key.port.get()),
                protocol(key.protocol),
                json!(interfaces(entry.flags)),
                json!(entry.bind_seq),
            ]
        });
        Ok(Dump { columns: &["address", "port", "protocol", "interface", "bind_seq"], rows: rows.collect() }.sorted())
    }

    /// `DIRECT_PEERS`: sockets of the host that sent datagrams to containers from service ports.
    pub(super) fn direct_peers(&self) -> Result<Dump, Error> {
        let rows = direct_peers(self.pins)?.into_iter().map(|(peer, at)| {
            vec![
                json!(peer.netns),
                json!(peer.own_port.get()),
                json!(IpAddr::from(peer.address)),
                json!(peer.port.get()),
                ago(at),
            ]
        });
        Ok(Dump { columns: &["netns", "own_port", "address", "port", "used_s_ago"], rows: rows.collect() }.sorted())
    }
}
