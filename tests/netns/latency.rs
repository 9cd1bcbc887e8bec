//! Policy `latency`: of two replicas, the nearer one gets the connections.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use proxymatic_common::RTT_STEPS_US;
use proxymatic_tests::eventually::uninterrupted;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::Lab;
use proxymatic_tests::net::host_address;
use proxymatic_tests::summary::Summary;
use proxymatic_user::dataplane::kernel::{Maps, Pins};
use serde_json::json;

use crate::fixtures::cluster::{URL, backend_id};
use crate::fixtures::file_source::{FileSource, backend, service};

/// Delay of a packet in each direction on the long path: much more than a busy machine adds.
const WAY: Duration = Duration::from_millis(100);
const VXLAN: u16 = 4789;
/// The hosts at the ends of the long path, and the host of the relay that delays packets.
const ENDS: [u8; 2] = [1, 3];
const RELAY: u8 = 4;

#[test]
fn measured_nearer_of_two_replicas_gets_nearly_all_connections() -> TestResult {
    let lab = Lab::start(4)?;
    let ended = AtomicBool::new(false);
    let relay = long_way(&lab)?;
    let [by_latency, by_chance] = thread::scope(|scope| -> Result<_> {
        let relayed = scope.spawn(|| delay(&relay, &ended));
        // Errors instead of panics in this closure; after a panic the relay would never end.
        let outcome = ask_both_ways(&lab);
        ended.store(true, Ordering::Relaxed);
        relayed.join().map_err(|_| anyhow!("the relay panicked"))??;
        outcome
    })?;
    let slowest = by_chance.slowest_ms();
    println!(
        "{:?} by latency, {:?} by chance, of which the slowest {slowest:.1} ms",
        by_latency.by_replica, by_chance.by_replica
    );
    let far = by_latency.by_replica.get("far").copied().unwrap_or(0);
    assert!(by_latency.failed == 0 && far <= 10, "{by_latency:?}");
    // The policy avoids the far replica, and the path has the intended delay. Of 60 random draws, 7 or fewer lead to it
    // with probability 4e-10.
    assert!(by_chance.failed == 0 && by_chance.by_replica["far"] > 7, "{by_chance:?}");
    assert!(slowest > 3.0 * WAY.as_secs_f64() * 1e3, "{by_chance:?}");
    Ok(())
}

/// Starts a near and a far replica, first with policy latency and then with random.
fn ask_both_ways(lab: &Lab) -> Result<[Summary; 2]> {
    let near = lab.replica(2, 8001, "near")?;
    let far = lab.host(3).replica_at(SocketAddr::from(([10, 78, 0, 3], 8001)), "far", &[])?;
    let backends = [backend(near.address), backend(far.address)];
    // A relay that a busy machine holds up for seconds must not fail a connect.
    let timeout = json!({ "connect": "60s" });
    let services = |policy| [service(&backends, &[("policy", json!(policy)), ("timeout", timeout.clone())])];
    let agent = FileSource::start(lab, &services("latency"), &[])?;
    let ask = |times: &str| lab.client(&["http", "--url", URL, "--count", times, "--linger0"]);
    let by_latency = undisturbed(lab, near.address, || ask("500"))?;
    // The latency of a replica is unknown until its first connection.
    let maps = Maps::open(&Pins::at(&lab.host(1).pins()))?;
    let load = maps.load(backend_id(&maps, far.address)?).context("no such backend")?;
    ensure!(load.established.get() >= 1, "the far replica was never tried");
    agent.rewrite(&services("random"))?;
    Ok([by_latency, ask("60")?])
}

/// Repeats a run until no handshake with the near replica takes as long as one way of the long path: after such a
/// handshake, as on a machine that stalls, the policy rightly prefers the far replica for a while.
fn undisturbed(lab: &Lab, near: SocketAddr, run: impl Fn() -> Result<Summary>) -> Result<Summary> {
    let maps = Maps::open(&Pins::at(&lab.host(1).pins()))?;
    let load = maps.load(backend_id(&maps, near)?).context("no such backend")?;
    let slow = || load.rtts[RTT_STEPS_US.len()].get();
    for _ in 0..10 {
        let before = slow();
        let seems_near = Duration::from_micros(load.rtt_us.get()) < WAY;
        let seen = run()?;
        if seems_near && slow() == before {
            return Ok(seen);
        }
    }
    bail!("the near replica was slow in each of ten runs")
}

/// A network between the ends, 10.78.0.0/24, whose packets a relay on the third host carries in datagrams.
fn long_way(lab: &Lab) -> Result<UdpSocket> {
    let relay = host_address(RELAY).to_string();
    for end in ENDS {
        let net = lab.host(end).net();
        let port = VXLAN.to_string();
        net.ip(&["link", "add", "far0", "type", "vxlan", "id", "7", "remote", &relay, "dstport", &port])?;
        net.ip(&["address", "add", &format!("10.78.0.{end}/24"), "dev", "far0"])?;
        net.ip(&["link", "set", "far0", "up"])?;
    }
    Ok(lab.host(RELAY).net().enter(|| UdpSocket::bind((host_address(RELAY), VXLAN)))??)
}

/// Carries datagrams from each end to the other, delayed.
fn delay(socket: &UdpSocket, ended: &AtomicBool) -> io::Result<()> {
    let [one, other] = ENDS.map(|end| IpAddr::from(host_address(end)));
    let mut waiting = VecDeque::<(Instant, IpAddr, Vec<u8>)>::new();
    let mut buffer = [0; 2048];
    while !ended.load(Ordering::Relaxed) {
        let next = waiting.front().map(|(at, ..)| at.saturating_duration_since(Instant::now()));
        if next.is_some_and(|left| left.is_zero()) {
            if let Some((_, to, datagram)) = waiting.pop_front() {
                socket.send_to(&datagram, (to, VXLAN))?;
            }
            continue;
        }
        socket.set_read_timeout(Some(next.unwrap_or(WAY)))?;
        match uninterrupted(|| socket.recv_from(&mut buffer)) {
            Ok((length, from)) => {
                let to = if from.ip() == one { other } else { one };
                sum(&mut buffer[..length]);
                waiting.push_back((Instant::now() + WAY, to, buffer[..length].to_vec()));
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills in the checksum of a carried TCP segment over IPv4, which the sender leaves to offloading hardware. Leaves
/// other packets as they are.
fn sum(datagram: &mut [u8]) -> Option<()> {
    const VXLAN_HEADER: usize = 8;
    const ETHERNET_HEADER: usize = 14;
    let (ethernet, ip) = datagram.get_mut(VXLAN_HEADER..)?.split_at_mut_checked(ETHERNET_HEADER)?;
    if ethernet[12..] != [0x08, 0x00] || *ip.get(9)? != 6 {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?]));
    let header_length = usize::from(ip.first()? & 0xf) * 4;
    let (header, segment) = ip.get_mut(..length)?.split_at_mut_checked(header_length)?;
    segment.get_mut(16..18)?.fill(0);
    let words = |bytes: &[u8]| -> u32 {
        bytes.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]))).sum()
    };
    let mut sum = words(&header[12..20]) + 6 + u32::try_from(segment.len()).ok()? + words(segment);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    segment[16..18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    Some(())
}
