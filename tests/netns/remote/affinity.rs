//! Affinity of remote clients goes by address: all connections and datagrams of an address stay with one backend,
//! whatever their port.

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::eventually::{eventually_ok, until};
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{CLIENT, Echo, Host, Lab};
use proxymatic_tests::net::{address_on, address6_on, interface};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use serde_json::{Value, json};

use super::client::{WAIT, asked};
use super::{ONE_ARMED, ROUTED, Way, at, exposed, places};
use crate::fixtures::cluster::PORT;

/// The number of clients in each family; each has an address of its own on the clients' host.
const CLIENTS: u8 = 12;
/// The number of connections of each client.
const TIMES: usize = 10;
/// An affinity time that no test outlasts.
const LONG: &str = "1h";
/// An affinity time that a test can wait for.
const SHORT: Duration = Duration::from_secs(1);
const SHORT_PORT: u16 = PORT + 1;

/// Four backends on each of two hosts, and addresses for the clients.
fn prepare(lab: &Lab, way: Way) -> Result<Vec<Echo>> {
    for (address, bits) in addresses(way).map(|address| (address, if address.is_ipv4() { 24 } else { 64 })) {
        let (address, device) = (format!("{address}/{bits}"), interface(way.arms.outside()));
        let add = ["address", "add", &address, "dev", &device, "nodad"];
        lab.host(CLIENT).net().ip(if bits == 24 { &add[..5] } else { &add })?;
    }
    [(2, 'a'), (3, 'b'), (2, 'c'), (3, 'd')]
        .into_iter()
        .zip(7001..)
        .map(|((host, name), port)| lab.host(host).echo(port, name))
        .collect()
}

/// The clients' addresses, in addition to those of their host.
fn addresses(way: Way) -> impl Iterator<Item = IpAddr> {
    let network = way.arms.outside();
    (100..100 + CLIENTS)
        .flat_map(move |number| [IpAddr::from(address_on(network, number)), address6_on(network, number).into()])
}

/// Opens a socket that is bound to an address, and connects it.
fn bound(kind: SocketType, from: IpAddr, to: SocketAddr) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddr::new(from, 0))?;
    connect(&socket, &to)?;
    Ok(socket)
}

/// Returns the replicas that answer a new connection and a new UDP socket of a client.
fn who(host: &Host, from: IpAddr, to: SocketAddr) -> Result<[char; 2]> {
    let outcome = host.net().enter(|| -> io::Result<_> {
        let mut stream = TcpStream::from(bound(SocketType::STREAM, from, to)?);
        stream.set_read_timeout(Some(WAIT))?;
        let mut name = [0];
        stream.read_exact(&mut name)?;
        let socket = UdpSocket::from(bound(SocketType::DGRAM, from, to)?);
        socket.set_read_timeout(Some(WAIT))?;
        Ok([char::from(name[0]), asked(&socket)?])
    })?;
    outcome.with_context(|| format!("from {from} to {to}"))
}

/// Returns the replica that answers each client, over TCP and UDP; fails if several answer one client.
fn answers(lab: &Lab, way: Way, port: u16) -> Result<Vec<[char; 2]>> {
    addresses(way)
        .map(|from| {
            let to = at(way.arms.service_addresses()[usize::from(from.is_ipv6())], port);
            let first = who(lab.host(CLIENT), from, to)?;
            for _ in 1..TIMES {
                let next = who(lab.host(CLIENT), from, to)?;
                ensure!(next == first, "{from} was answered by {first:?}, and then by {next:?}");
            }
            Ok(first)
        })
        .collect()
}

/// A service of both protocols with this affinity.
fn sticky(echoes: &[Echo], port: u16, affinity: &str) -> Vec<Value> {
    let of = |protocol: &str| {
        let name = format!("{protocol}-{port}");
        exposed(&name, protocol, port, &places(echoes), &[("affinity", json!(affinity))])
    };
    ["tcp", "udp"].map(of).concat()
}

#[test]
fn remote_affinity_keeps_each_client_on_its_backend() -> TestResult {
    for way in [ROUTED, ONE_ARMED] {
        let lab = way.lab()?;
        let echoes = prepare(&lab, way)?;
        let _agent = way.serve(&lab, &sticky(&echoes, PORT, LONG))?;
        let first = answers(&lab, way, PORT)?;
        for protocol in 0..2 {
            let backends: BTreeSet<_> = first.iter().map(|names| names[protocol]).collect();
            // By chance one backend has all clients once in 4^23 runs.
            assert!(backends.len() > 1, "{way:?}: all clients are answered by {backends:?}");
        }
        assert_eq!(answers(&lab, way, PORT)?, first, "{way:?}");
    }
    Ok(())
}

#[test]
fn remote_affinity_ends_after_its_time() -> TestResult {
    for way in [ROUTED, ONE_ARMED] {
        let lab = way.lab()?;
        let echoes = prepare(&lab, way)?;
        let long = sticky(&echoes, PORT, LONG);
        let short = sticky(&echoes, SHORT_PORT, &format!("{}s", SHORT.as_secs()));
        let _agent = way.serve(&lab, &[long, short].concat())?;
        let once = |port| -> Result<Vec<_>> {
            let to = |from: IpAddr| at(way.arms.service_addresses()[usize::from(from.is_ipv6())], port);
            addresses(way).map(|from| who(lab.host(CLIENT), from, to(from))).collect()
        };
        let first = [once(PORT)?, once(SHORT_PORT)?];
        eventually_ok("a client is answered by another backend", WAIT + SHORT * 5, || {
            until(Instant::now() + SHORT);
            ensure!(once(SHORT_PORT)? != first[1], "all stay");
            Ok(())
        })?;
        assert_eq!(once(PORT)?, first[0], "{way:?}: the affinity of the other service is not over");
    }
    Ok(())
}
