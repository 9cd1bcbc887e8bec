//! A flood of SYNs from addresses that nobody has, bounded in rate and number, in namespaces of the lab's own.

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

use super::{ROUTED, Remote, WAYS, asked, open_is, who};

/// SYNs a second, where the machine can.
const RATE: u32 = 100_000;
/// One thread does not send as many, since each SYN is forwarded, answered and translated back in the call that sends it.
const SENDERS: u32 = 2;
/// Connections that can wait to be opened: each backend has the source ports 61000 to 64999.
const ROOM: u64 = 2 * 4_000;
/// SYNs that each sends before the clock is looked at again.
const BURST: u32 = 50;
/// Where they say that they come from: 198.18.0.0/15 is for such tests (RFC 2544).
const STRANGERS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);

#[test]
fn syn_flood_breaks_no_flow_and_refuses_no_new_client() -> TestResult {
    for way in [ROUTED, WAYS[2]] {
        let lab = way.lab()?;
        strangers(&lab)?;
        let remote = Remote::start(&lab, way)?;
        let transfers = remote.transfers(50)?;
        let datagrams = super::socket(lab.host(CLIENT), way.dialled()[0])?;
        let first = asked(&datagrams)?;
        open_is(&lab, 51)?;
        let to = SocketAddrV4::new(address_on(way.arms.outside(), 1), PORT);
        let syns = if way.xdp { 2 * RATE } else { 10 * RATE };
        let took = thread::scope(|scope| -> Result<Duration> {
            let flood = scope.spawn(|| flood(lab.host(CLIENT), to, syns));
            while !flood.is_finished() {
                transfers.go_on("ab", 10)?;
                who(lab.host(CLIENT), way.dialled()[0]).context("a new connection is not served")?;
                assert_eq!(asked(&datagrams).context("a flow of datagrams broke")?, first);
            }
            flood.join().map_err(|_| anyhow::anyhow!("the flood panicked"))?
        })?;
        let preempted = lab.host(1).verdict("snat_port_preempted")?;
        let rate = f64::from(syns) / took.as_secs_f64();
        println!("{way:?}: {syns} SYNs, {rate:.0} a second, {preempted} of them with all ports taken; no flow broke");
        // How many SYNs arrive at once depends on the machine. It is a flood if it fills all source ports several times over.
        assert!(preempted > 5 * ROOM, "the flood was no flood: {preempted} of {syns} SYNs met a full table");
        // A SYN that nobody follows up is no connection.
        open_is(&lab, 51)?;
        transfers.go_on("ab", 10)?;
        // Its SYNs may still have every source port, but none that another wants.
        remote.answers_come_from("ab")?;
        transfers.finish("ab")?;
    }
    Ok(())
}

/// Answers to the strangers go to the clients' host, which throws them away.
fn strangers(lab: &Lab) -> Result<()> {
    let way = [&format!("{STRANGERS}/15"), "via", &address_on(1, CLIENT).to_string()].map(str::to_owned);
    lab.host(1).net().ip(&["route", "add", &way[0], &way[1], &way[2]])?;
    lab.host(CLIENT).net().ip(&["route", "add", "blackhole", &way[0]])
}

/// How long it took to send as many as that.
fn flood(from: &Host, to: SocketAddrV4, syns: u32) -> Result<Duration> {
    let begun = Instant::now();
    thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS).map(|nth| scope.spawn(move || send(from, to, nth, syns))).collect();
        senders.into_iter().try_for_each(|it| it.join().map_err(|_| anyhow::anyhow!("a sender panicked"))?)
    })?;
    Ok(begun.elapsed())
}

/// The part of one sender.
fn send(from: &Host, to: SocketAddrV4, sender: u32, syns: u32) -> Result<()> {
    let raw = from.net().enter(|| -> io::Result<UdpSocket> {
        // Packets are given to it with their IP header (raw(7)).
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
        // A host of its own each time, and its ports in turn.
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
