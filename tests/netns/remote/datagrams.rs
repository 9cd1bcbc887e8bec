//! Datagrams of every size. Those larger than a packet are fragmented, and only the first fragment has the ports.

use std::collections::BTreeSet;
use std::net::UdpSocket;

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::eventually::uninterrupted;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::CLIENT;

use super::client::{asked, socket};
use super::{ONE_ARMED, ROUTED, Remote, WAYS};

const DATAGRAMS: usize = 10_000;
/// The sockets to each address: they miss one of two backends by chance once in 10^14 times.
const SOCKETS: usize = 50;
/// The datagrams of each socket.
const EACH: usize = DATAGRAMS / WAYS.len() / (2 * SOCKETS);
/// Sizes that fit into one packet of 1,500 bytes, just fit, just do not fit, and need many fragments.
const SIZES: [usize; 6] = [9, 64, 1_452, 1_473, 4_000, 9_001];
/// How many datagrams are in flight at once: fewer than a socket's buffer holds.
const WINDOW: usize = 8;

#[test]
fn datagrams_10000_of_any_size_return_whole_from_the_service() -> TestResult {
    for way in WAYS {
        let lab = way.lab()?;
        let remote = Remote::start(&lab, way)?;
        // Half of them in each family.
        for to in way.service_addresses() {
            let mut names = BTreeSet::new();
            for _ in 0..SOCKETS {
                let socket = socket(lab.host(CLIENT), to)?;
                names.insert(exchange(&socket, EACH).with_context(|| format!("{way:?} {to}"))?);
            }
            assert_eq!(names, BTreeSet::from([b'a', b'b']), "{way:?} {to}");
        }
        drop(remote);
    }
    Ok(())
}

#[test]
fn udp_socket_keeps_its_backend_and_gets_service_replies() -> TestResult {
    for way in [ROUTED, ONE_ARMED] {
        let lab = way.lab()?;
        let remote = Remote::start(&lab, way)?;
        for to in way.service_addresses() {
            // A connected socket receives from its peer only.
            let socket = socket(lab.host(CLIENT), to)?;
            let first = asked(&socket)?;
            for _ in 0..50 {
                assert_eq!(asked(&socket)?, first, "{way:?} {to}");
            }
        }
        drop(remote);
    }
    Ok(())
}

/// Sends this many datagrams and checks each reply; returns the names of the replicas.
fn exchange(socket: &UdpSocket, count: usize) -> Result<u8> {
    let mut names = BTreeSet::new();
    let mut answer = vec![0; 1 << 16];
    for first in (0..count).step_by(WINDOW) {
        let window: Vec<_> = (first..count.min(first + WINDOW)).map(datagram).collect();
        for datagram in &window {
            socket.send(datagram)?;
        }
        let mut missing: Vec<_> = window.iter().map(|it| &it[1..]).collect();
        while !missing.is_empty() {
            let length = uninterrupted(|| socket.recv(&mut answer)).with_context(|| {
                format!("no answer to {:?} bytes", missing.iter().map(|it| it.len() + 1).collect::<Vec<_>>())
            })?;
            let (name, rest) = answer[..length].split_first().context("an empty answer")?;
            let nth = missing.iter().position(|it| *it == rest);
            missing.remove(nth.with_context(|| format!("{length} bytes that were not sent, or not now"))?);
            names.insert(*name);
        }
    }
    ensure!(names.len() == 1, "one socket is answered by {names:?}");
    names.pop_first().context("no datagram")
}

/// The n-th datagram, which differs from all others.
fn datagram(nth: usize) -> Vec<u8> {
    let size = SIZES[nth % SIZES.len()];
    let mut bytes: Vec<u8> = (0..size).map(|at| (at * 7 + nth) as u8).collect();
    bytes[1..9].copy_from_slice(&(nth as u64).to_be_bytes());
    bytes
}
