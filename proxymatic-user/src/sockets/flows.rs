//! Flows: the translations that are in use, each with the process that has the socket.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::maps::{Map, MapData, SkStorage};
use proxymatic_common::{
    Address, PROTOCOL_TCP, PROTOCOL_UDP, Port, Socket, Translation,
    maps::{MapDef as _, Sockets},
};

use super::{
    Row, Traffic,
    diag::Diag,
    namespaces::{self, NetnsGuard},
    sweep::FAMILIES,
    udp_storage::{open_sockets_of, read_udp_storage},
};
use crate::dataplane::{
    Error,
    kernel::{ConntrackMaps, CtConnection, Pins, monotonic},
};

/// A translation that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// IPPROTO number.
    pub protocol: u8,
    /// The socket's own address.
    pub local: Address,
    /// The socket's own port.
    pub local_port: Port,
    /// The destination and the backend.
    pub translation: Translation,
    /// When the socket last got a new backend, in nanoseconds of the monotonic clock.
    pub start: u64,
    /// Bytes and round trip time; `None` for UDP.
    pub traffic: Option<Traffic>,
    /// The process that has the socket open; `None` if this process may not see it.
    pub process: Option<Process>,
    /// The address of a remote client; `None` for a socket of this host. With a remote client, `local` is the address
    /// from which the backend is reached.
    pub client: Option<(Address, Port)>,
}

/// The process that has a socket open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// The process id, as seen in the pid namespace of this process.
    pub pid: u32,
    /// The name of the process, at most 15 bytes (TASK_COMM_LEN).
    pub command: String,
    /// The cgroup, as a path from the root of the cgroup2 tree that this process sees.
    pub cgroup: String,
}

/// The flows of this host, as far as this process may see them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flows {
    /// The flows, in no order.
    pub flows: Vec<Flow>,
    /// Why flows may be missing, with the remedy.
    pub limitation: Option<String>,
}

/// Returns the flows of all network namespaces, and those of remote clients. Needs no agent.
///
/// The calling thread enters each namespace and is back when this returns; it must run nothing else.
///
/// # Errors
/// Fails if nothing is pinned, or if the conntrack maps cannot be read.
pub fn flows(pins: &Pins) -> Result<Flows, Error> {
    let map = open_sockets(pins)?;
    let storage = SkStorage::try_from(Map::SkStorage(open_sockets(pins)?))
        .map_err(|error| Error::kernel(format!("open {}", Sockets::NAME), &error))?;
    let mut seen = Flows { flows: Vec::new(), limitation: namespaces::limitation() };
    let mut rows = Vec::new();
    if let Err(error) = visit_all_netns(&map, &mut rows, &mut seen) {
        seen.limitation = Some(format!("cannot list all sockets: {error}; run it as root, on the host"));
    }
    let datagrams = rows.iter().filter(|row| row.protocol == PROTOCOL_UDP).map(|row| row.inode).collect();
    let stored = read_udp_storage(&storage, &datagrams);
    for row in &mut rows {
        if let Some(socket) = stored.get(&row.inode) {
            row.socket = *socket;
        }
    }
    rows.retain(|row| in_use(row).next().is_some());
    let owners = processes_of(&rows.iter().map(|row| row.inode).collect());
    seen.flows = rows.iter().flat_map(|row| in_use(row).map(|made| flow(row, *made, &owners))).collect();
    let now = monotonic();
    ConntrackMaps::open(pins)?.each(true, now, |connection| {
        if connection.counts_as_open() && !connection.is_expired(now) {
            seen.flows.push(remote(&connection));
        }
    })?;
    Ok(seen)
}

fn open_sockets(pins: &Pins) -> Result<MapData, Error> {
    let path = pins.map(Sockets::NAME);
    let is_pinned = path.exists();
    MapData::from_pin(path).map_err(|error| {
        if is_pinned { Error::kernel(format!("open {}", Sockets::NAME), &error) } else { pins.missing() }
    })
}

fn visit_all_netns(map: &MapData, rows: &mut Vec<Row>, seen: &mut Flows) -> io::Result<()> {
    let home = NetnsGuard::here()?;
    for namespace in namespaces::all()?.values() {
        // The process has ended. Another process may keep its namespace alive, whose flows are then missing.
        if let Err(error) = home.run_in(namespace, || dump_netns(map, rows)) {
            let what = namespace.display();
            seen.limitation
                .get_or_insert_with(|| format!("cannot list the sockets of {what}: {error}; run it as root"));
        }
    }
    Ok(())
}

fn dump_netns(map: &MapData, rows: &mut Vec<Row>) -> io::Result<()> {
    let map = map.fd().as_fd().as_raw_fd();
    let (mut diag, mut cookies) = (Diag::open()?, BTreeSet::new());
    for protocol in [PROTOCOL_TCP, PROTOCOL_UDP] {
        for family in FAMILIES {
            diag.dump(family, protocol, map, |row| {
                // The kernel may show a socket twice if other sockets are opened and closed meanwhile.
                if cookies.insert(row.cookie()) {
                    rows.push(row);
                }
            })?;
        }
    }
    Ok(())
}

/// Returns the translations of a socket that are in use. A connected socket, or one that is connecting, uses only
/// that translation. An unconnected UDP socket uses those of all its destinations.
fn in_use(row: &Row) -> impl Iterator<Item = &Translation> {
    let Socket { ring: [connect, sent @ ..], .. } = &row.socket;
    let open = row.connection().is_some() || (row.protocol == PROTOCOL_TCP && connect.counted != 0);
    let known = |made: &&Translation| made.backend_port != Port::new(0);
    let sent = sent.iter().filter(move |_| row.protocol == PROTOCOL_UDP && !row.connected);
    Some(connect).filter(|_| open).into_iter().chain(sent).filter(known)
}

fn flow(row: &Row, translation: Translation, owners: &BTreeMap<u32, Process>) -> Flow {
    Flow {
        protocol: row.protocol,
        local: row.local,
        local_port: row.local_port,
        translation,
        start: row.socket.start,
        traffic: row.traffic,
        process: owners.get(&row.inode).cloned(),
        client: None,
    }
}

fn remote(connection: &CtConnection) -> Flow {
    let CtConnection { client, entry, .. } = connection;
    Flow {
        protocol: client.protocol,
        local: entry.translated.source,
        local_port: entry.translated.source_port,
        translation: Translation {
            destination: client.destination,
            destination_port: client.destination_port,
            backend_address: entry.translated.destination,
            backend_port: entry.translated.destination_port,
            backend: entry.backend,
            generation: entry.generation,
            counted: u32::from(connection.counts_as_open()),
        },
        start: entry.start,
        traffic: None,
        process: None,
        client: Some(connection.client_address()),
    }
}

/// Returns the first process that has each of these sockets open.
fn processes_of(inodes: &BTreeSet<u32>) -> BTreeMap<u32, Process> {
    let mut found = BTreeMap::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        if found.len() == inodes.len() {
            break;
        }
        let of = open_sockets_of(pid).filter(|(inode, _)| inodes.contains(inode)).map(|(inode, _)| inode);
        for inode in of.collect::<BTreeSet<_>>() {
            found.entry(inode).or_insert_with(|| process(pid));
        }
    }
    found
}

fn process(pid: i32) -> Process {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let cgroup = read("cgroup").lines().find_map(|line| line.strip_prefix("0::").map(str::to_owned));
    Process { pid: pid as u32, command: read("comm").trim_end().into(), cgroup: cgroup.unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsRawFd as _, os::unix::fs::MetadataExt as _};

    use super::*;

    fn address(last: u8) -> Address {
        std::net::IpAddr::from([10, 0, 0, last]).into()
    }

    fn made(last: u8, counted: u32) -> Translation {
        Translation { backend_address: address(last), backend_port: Port::new(8001), counted, ..Translation::NONE }
    }

    fn row(protocol: u8, ring: &[Translation]) -> Row {
        let mut socket = Socket::NEW;
        socket.ring[..ring.len()].copy_from_slice(ring);
        Row::of(protocol, address(2), Port::new(8001), socket)
    }

    fn shown(row: &Row) -> Vec<Address> {
        in_use(row).map(|made| made.backend_address).collect()
    }

    #[test]
    fn tcp_socket_uses_its_connection_also_while_connecting() {
        assert_eq!(shown(&row(PROTOCOL_TCP, &[made(2, 1)])), [address(2)]);
        let trying = Row { connected: false, ..row(PROTOCOL_TCP, &[made(2, 1)]) };
        assert_eq!(shown(&trying), [address(2)]);
        let closed = Row { connected: false, ..row(PROTOCOL_TCP, &[made(2, 0)]) };
        assert_eq!(shown(&closed), []);
        assert_eq!(shown(&row(PROTOCOL_TCP, &[])), [], "a socket that hooks did not translate");
    }

    #[test]
    fn udp_socket_uses_its_connection_or_all_its_destinations() {
        let sent = [Translation::NONE, made(3, 1), made(4, 1)];
        assert_eq!(shown(&Row { connected: false, ..row(PROTOCOL_UDP, &sent) }), [address(3), address(4)]);
        assert_eq!(shown(&row(PROTOCOL_UDP, &[made(2, 1), made(3, 1)])), [address(2)]);
        assert_eq!(shown(&row(PROTOCOL_UDP, &[made(5, 1)])), [], "the socket was connected to another peer since");
    }

    #[test]
    fn process_of_a_socket_is_found() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let inode = fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap().ino() as u32;
        let found = processes_of(&[inode].into());
        assert_eq!(found[&inode].pid, std::process::id());
        assert!(!found[&inode].command.is_empty());
    }
}
