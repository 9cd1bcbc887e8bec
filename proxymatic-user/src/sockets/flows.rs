//! What is being translated now: each socket that was taken to a backend, with the process that has it.

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
    udp_storage::{open, remembered},
};
use crate::dataplane::{
    Error,
    kernel::{ConntrackMaps, CtConnection, Pins, monotonic},
};

/// One translation that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// IPPROTO number.
    pub protocol: u8,
    /// The socket's own address.
    pub local: Address,
    /// The socket's own port.
    pub local_port: Port,
    /// What was dialled, and where it leads.
    pub made: Translation,
    /// When the socket was last taken to a backend anew: nanoseconds of the monotonic clock.
    pub start: u64,
    /// What it has carried; `None` of UDP.
    pub traffic: Option<Traffic>,
    /// Who has it; `None` where that cannot be seen.
    pub process: Option<Process>,
    /// The client, where it is on another machine: then it is no socket of this host, `local` is where the backend sees it
    /// come from.
    pub client: Option<(Address, Port)>,
}

/// A process, as far as it can be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id, as seen from here.
    pub pid: u32,
    /// Its name, at most 15 bytes (TASK_COMM_LEN).
    pub command: String,
    /// Its cgroup, as a path from the root of the cgroup2 tree that is seen from here.
    pub cgroup: String,
}

/// What could be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The flows, in no order.
    pub flows: Vec<Flow>,
    /// Why that may not be all, with the remedy.
    pub blind: Option<String>,
}

/// Looks through the sockets of all network namespaces, and the connections of clients on other machines. Enters them with the calling thread, which is back when this
/// returns: nothing else may run on it. No agent is needed.
///
/// # Errors
/// Nothing is pinned.
pub fn flows(pins: &Pins) -> Result<Seen, Error> {
    let map = open_sockets(pins)?;
    let asked = SkStorage::try_from(Map::SkStorage(open_sockets(pins)?))
        .map_err(|error| Error::kernel(format!("open {}", Sockets::NAME), &error))?;
    let mut seen = Seen { flows: Vec::new(), blind: namespaces::blind() };
    let mut rows = Vec::new();
    if let Err(error) = go_round(&map, &mut rows, &mut seen) {
        seen.blind = Some(format!("not all sockets could be seen: {error}; run it as root, on the host"));
    }
    let datagrams = rows.iter().filter(|row| row.protocol == PROTOCOL_UDP).map(|row| row.inode).collect();
    let remembered = remembered(&asked, &datagrams);
    for row in &mut rows {
        if let Some(socket) = remembered.get(&row.inode) {
            row.socket = *socket;
        }
    }
    rows.retain(|row| in_use(row).next().is_some());
    let owners = owners(&rows.iter().map(|row| row.inode).collect());
    seen.flows = rows.iter().flat_map(|row| in_use(row).map(|made| flow(row, *made, &owners))).collect();
    let now = monotonic();
    ConntrackMaps::open(pins)?.each(true, now, |connection| {
        if connection.counts() && !connection.is_over(now) {
            seen.flows.push(remote(&connection));
        }
    })?;
    Ok(seen)
}

fn open_sockets(pins: &Pins) -> Result<MapData, Error> {
    let path = pins.map(Sockets::NAME);
    let there = path.exists();
    MapData::from_pin(path)
        .map_err(|error| if there { Error::kernel(format!("open {}", Sockets::NAME), &error) } else { pins.missing() })
}

fn go_round(map: &MapData, rows: &mut Vec<Row>, seen: &mut Seen) -> io::Result<()> {
    let home = NetnsGuard::here()?;
    for namespace in namespaces::found()?.values() {
        // Where the process that led there has ended, others may still be there: what is shown is a moment anyway.
        if let Err(error) = home.run_in(namespace, || within(map, rows)) {
            let what = namespace.display();
            seen.blind
                .get_or_insert_with(|| format!("the sockets of {what} could not be seen: {error}; run it as root"));
        }
    }
    Ok(())
}

fn within(map: &MapData, rows: &mut Vec<Row>) -> io::Result<()> {
    let map = map.fd().as_fd().as_raw_fd();
    let (mut diag, mut cookies) = (Diag::open()?, BTreeSet::new());
    for protocol in [PROTOCOL_TCP, PROTOCOL_UDP] {
        for family in FAMILIES {
            diag.dump(family, protocol, map, |row| {
                // The kernel may show one twice, where others come and go beside it.
                if cookies.insert(row.cookie()) {
                    rows.push(row);
                }
            })?;
        }
    }
    Ok(())
}

/// What of that which a socket remembers is in use: its connection, be it only being made; of one without, all that it has
/// sent to and may again.
fn in_use(row: &Row) -> impl Iterator<Item = &Translation> {
    let Socket { ring: [connect, sent @ ..], .. } = &row.socket;
    let open = row.connection().is_some() || (row.protocol == PROTOCOL_TCP && connect.counted != 0);
    let known = |made: &&Translation| made.backend_port != Port::new(0);
    let sent = sent.iter().filter(move |_| row.protocol == PROTOCOL_UDP && !row.connected);
    Some(connect).filter(|_| open).into_iter().chain(sent).filter(known)
}

fn flow(row: &Row, made: Translation, owners: &BTreeMap<u32, Process>) -> Flow {
    Flow {
        protocol: row.protocol,
        local: row.local,
        local_port: row.local_port,
        made,
        start: row.socket.start,
        traffic: row.traffic,
        process: owners.get(&row.inode).cloned(),
        client: None,
    }
}

fn remote(connection: &CtConnection) -> Flow {
    let CtConnection { client, half, .. } = connection;
    Flow {
        protocol: client.protocol,
        local: half.translated.source,
        local_port: half.translated.source_port,
        made: Translation {
            destination: client.destination,
            destination_port: client.destination_port,
            backend_address: half.translated.destination,
            backend_port: half.translated.destination_port,
            backend: half.backend,
            generation: half.generation,
            counted: u32::from(connection.counts()),
        },
        start: half.start,
        traffic: None,
        process: None,
        client: Some(connection.who()),
    }
}

/// The first process that has each of these sockets open.
fn owners(inodes: &BTreeSet<u32>) -> BTreeMap<u32, Process> {
    let mut found = BTreeMap::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        if found.len() == inodes.len() {
            break;
        }
        let of = open(pid).filter(|(inode, _)| inodes.contains(inode)).map(|(inode, _)| inode);
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
    fn a_connection_is_in_use_while_it_is_there_or_is_being_made() {
        assert_eq!(shown(&row(PROTOCOL_TCP, &[made(2, 1)])), [address(2)]);
        let trying = Row { connected: false, ..row(PROTOCOL_TCP, &[made(2, 1)]) };
        assert_eq!(shown(&trying), [address(2)]);
        let closed = Row { connected: false, ..row(PROTOCOL_TCP, &[made(2, 0)]) };
        assert_eq!(shown(&closed), []);
        assert_eq!(shown(&row(PROTOCOL_TCP, &[])), [], "one that has nothing to do with us");
    }

    #[test]
    fn a_datagram_socket_uses_its_connection_or_all_that_it_has_sent_to() {
        let sent = [Translation::NONE, made(3, 1), made(4, 1)];
        assert_eq!(shown(&Row { connected: false, ..row(PROTOCOL_UDP, &sent) }), [address(3), address(4)]);
        assert_eq!(shown(&row(PROTOCOL_UDP, &[made(2, 1), made(3, 1)])), [address(2)]);
        assert_eq!(shown(&row(PROTOCOL_UDP, &[made(5, 1)])), [], "connected elsewhere since");
    }

    #[test]
    fn the_process_that_has_a_socket_is_named() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let inode = fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap().ino() as u32;
        let found = owners(&[inode].into());
        assert_eq!(found[&inode].pid, std::process::id());
        assert!(!found[&inode].command.is_empty());
    }
}
