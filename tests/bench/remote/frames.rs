//! Frames that no socket has sent: they arrive at the other end of a cable as from a network card.
//!
//! A frame that a socket sends through a veth is copied before an XDP program sees it, which a card does not need. The
//! socket also saves netfilter the cost of making an skb from a frame.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    path::Path,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    EbpfLoader,
    maps::Array,
    programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp},
};
use etherparse::PacketBuilder;

use super::stage::PAYLOAD;

/// The smallest frame, without its checksum.
const LENGTH: usize = 60;
/// Number of frames per call.
const CALL: u32 = 4_096;
/// Number of frames per batch: as many as a card delivers.
const BATCH: u32 = 64;

/// Sends frames of these flows, in turn, by an interface.
pub(super) fn pour(flows: &[UdpSocket], interface: &str, end: Instant) -> Result<()> {
    let object = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/proxymatic-bench-xdp-pktgen.o");
    let mut ebpf = EbpfLoader::new().load_file(&object).with_context(|| format!("load {}", object.display()))?;
    let next = neighbour(interface)?;
    let frames = flows.iter().map(|flow| frame(flow, next)).collect::<Result<Vec<_>>>()?;
    let mut slots: Array<_, [u32; LENGTH / 4]> = Array::try_from(ebpf.map_mut("FRAMES").context("no map FRAMES")?)?;
    ensure!(slots.len() as usize == frames.len(), "the program has {} flows", slots.len());
    for (nth, frame) in (0..).zip(&frames) {
        let mut words = [0; LENGTH / 4];
        for (word, bytes) in words.iter_mut().zip(frame.chunks_exact(4)) {
            *word = u32::from_ne_bytes(bytes.try_into()?);
        }
        slots.set(nth, words, 0)?;
    }
    let program: &mut Xdp = ebpf.program_mut("xdp_pktgen").context("no program xdp_pktgen")?.try_into()?;
    program.load()?;
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let number = nix::net::if_::if_nametoindex(interface)?;
    let context: Vec<u8> = [0, LENGTH as u32, 0, number, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
    while Instant::now() < end {
        program.test_run(TestRunOptions {
            data_in: Some(&frames[0]),
            ctx_in: Some(&context),
            repeat: CALL,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        })?;
    }
    Ok(())
}

/// Returns a datagram of a flow as a frame.
fn frame(flow: &UdpSocket, next: [u8; 6]) -> Result<Vec<u8>> {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (flow.local_addr()?, flow.peer_addr()?) else {
        anyhow::bail!("not by IPv4")
    };
    // Nothing here checks the sender.
    let packet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], next).ipv4(from.ip().octets(), to.ip().octets(), 64);
    let mut bytes = Vec::with_capacity(LENGTH);
    packet.udp(from.port(), to.port()).write(&mut bytes, &[b'x'; PAYLOAD as usize])?;
    ensure!(bytes.len() == LENGTH, "a frame of {} bytes", bytes.len());
    Ok(bytes)
}

/// Returns the link address at the other end of a cable.
fn neighbour(interface: &str) -> Result<[u8; 6]> {
    let known = fs::read_to_string("/proc/thread-self/net/arp")?;
    let line =
        known.lines().find(|line| line.ends_with(interface)).with_context(|| format!("no neighbour at {interface}"))?;
    let link = line.split_whitespace().nth(3).context("an unexpected line of the kernel")?;
    let bytes = link.split(':').map(|it| u8::from_str_radix(it, 16)).collect::<Result<Vec<_>, _>>()?;
    bytes.try_into().ok().with_context(|| format!("an invalid link address: {link}"))
}
