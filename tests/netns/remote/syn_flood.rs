//! A flood of SYNs from unused addresses, limited in rate and number, in namespaces of the lab.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use etherparse::PacketBuilder;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, connect, socket};
use proxymatic_tests::eventually::until;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{CLIENT, Host, Lab};
use proxymatic_tests::net::address_on;

use crate::fixtures::cluster::PORT;

use super::client::{asked, who};
use super::{ROUTED, Remote, WAYS, open_is};

/// SYNs per second, if the machine is fast enough.
const RATE: u32 = 100_000;
/// Several threads, since each SYN is forwarded, answered and translated back within the call that sends it.
const SENDERS: u32 = 2;
/// The limit of half-open connections: each backend has the SNAT ports 61000 to 64999.
const ROOM: u64 = 2 * 4_000;
/// SYNs that each thread sends between two looks at the clock.
const BURST: u32 = 50;
/// Their source addresses: 198.18.0.0/15 is reserved for tests like this one (RFC 2544).
const STRANGERS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);

#[test]
fn measured_syn_flood_breaks_no_flow_and_refuses_no_new_client() -> TestResult {
    for way in [ROUTED, WAYS[2]] {
        let lab = way.lab()?;
        strangers(&lab)?;
        let remote = Remote::start(&lab, way)?;
        let transfers = remote.transfers(50)?;
        let datagrams = super::client::socket(lab.host(CLIENT), way.service_addresses()[0])?;
        let first = asked(&datagrams)?;
        open_is(&lab, 51)?;
        let to = SocketAddrV4::new(address_on(way.arms.outside(), 1), PORT);
        let syns = if way.xdp { 2 * RATE } else { 10 * RATE };
        let took = thread::scope(|scope| -> Result<Duration> {
            let flood = scope.spawn(|| flood(lab.host(CLIENT), to, syns));
            while !flood.is_finished() {
                transfers.go_on("ab", 10)?;
                // A machine that schedules the client later than the flood turns the table over evicts its half-open
                // connection. Then the client has to connect again.
                let connect = || who(lab.host(CLIENT), way.service_addresses()[0]);
                connect()
                    .or_else(|_| connect())
                    .or_else(|_| connect())
                    .context("three new connections are not served")?;
                assert_eq!(asked(&datagrams).context("a flow of datagrams broke")?, first);
            }
            flood.join().map_err(|_| anyhow::anyhow!("the flood panicked"))?
        })?;
        let preempted = lab.host(1).verdict("snat_port_preempted")?;
        let rate = f64::from(syns) / took.as_secs_f64();
        println!("{way:?}: {syns} SYNs, {rate:.0} a second, {preempted} of them with all ports taken; no flow broke");
        // The rate depends on the machine. The flood must fill all SNAT ports several times over.
        assert!(preempted > 5 * ROOM, "the flood was no flood: {preempted} of {syns} SYNs met a full table");
        // A SYN without a completed handshake is no connection.
        open_is(&lab, 51)?;
        transfers.go_on("ab", 10)?;
        // Its half-open connections may still hold every SNAT port, but a new connection preempts them.
        remote.answers_come_from("ab")?;
        transfers.finish("ab")?;
    }
    Ok(())
}

/// Replies to the unused addresses go to the clients' host, which drops them.
fn strangers(lab: &Lab) -> Result<()> {
    let way = [&format!("{STRANGERS}/15"), "via", &address_on(1, CLIENT).to_string()].map(str::to_owned);
    lab.host(1).net().ip(&["route", "add", &way[0], &way[1], &way[2]])?;
    lab.host(CLIENT).net().ip(&["route", "add", "blackhole", &way[0]])
}

/// Sends this many SYNs, and returns how long that took.
fn flood(from: &Host, to: SocketAddrV4, syns: u32) -> Result<Duration> {
    let begun = Instant::now();
    thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS).map(|nth| scope.spawn(move || send(from, to, nth, syns))).collect();
        senders.into_iter().try_for_each(|it| it.join().map_err(|_| anyhow::anyhow!("a sender panicked"))?)
    })?;
    Ok(begun.elapsed())
}

/// The share of one sender.
fn send(from: &Host, to: SocketAddrV4, sender: u32, syns: u32) -> Result<()> {
    let raw = from.net().enter(|| -> io::Result<UdpSocket> {
        // raw(7): the packet includes its IP header.
        let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
        connect(raw.as_raw_fd(), &SockaddrIn::from(to))?;
        Ok(raw.into())
    })?;
    let raw = raw.context("a raw socket")?;
    let mut packet = Vec::new();
    let begun = Instant::now();
    for (sent, nth) in (sender..syns).step_by(SENDERS as usize).enumerate() {
        if sent % BURST as usize == 0 {
            until(begun + Duration::from_secs(1) * nth / RATE);
        }
        packet.clear();
        // A new source address each time, and its ports in turn.
        let stranger = Ipv4Addr::from_bits(STRANGERS.to_bits() + nth % (1 << 17));
        let syn = PacketBuilder::ipv4(stranger.octets(), to.ip().octets(), 64);
        syn.tcp(1_024 + (nth / 7 % 60_000) as u16, to.port(), nth, 64_240).syn().write(&mut packet, &[])?;
        match raw.send(&packet) {
            // The queue of the interface is full: the next burst finds room.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => {}
            sent => drop(sent.context("send a SYN")?),
        }
    }
    Ok(())
}
