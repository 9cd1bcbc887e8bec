//! The measurements: the hosts with their permanent processes, the CPU of each process, and what is counted.

use std::{
    env, fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::{
    eventually::until,
    lab::{Host, Lab, PATIENCE},
    net::{Network, ethtool, interface},
    process::Process,
};

use super::{
    hosts::{CLIENTS, CPU, DIRECT, INNER, MIDDLE, OUTER, SERVER, SERVERS, nft, run},
    peers::{Peer, Running},
};

/// The payload of a datagram of [`super::Pour`], which makes a frame of 64 bytes.
pub(super) const PAYLOAD: u16 = 18;
/// The CPU of all other processes.
const OTHERS: &str = "0";

/// The source of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// Sockets.
    Sockets,
    /// No socket: see [`super::frames`].
    Card,
}

/// The result of one measurement.
pub(super) struct Sample {
    count: u64,
    took: Duration,
    /// The CPU time of the host in the middle meanwhile.
    worked: Duration,
}

impl Sample {
    pub(super) fn rate(&self) -> f64 {
        self.count as f64 / self.took.as_secs_f64()
    }

    /// Nanoseconds for each.
    pub(super) fn cost(&self) -> f64 {
        self.worked.as_nanos() as f64 / self.count as f64
    }
}

/// The hosts and their permanent processes.
pub(super) struct Stage {
    pub(super) lab: Lab,
    /// The threads that fetch packets for the host in the middle, by process id.
    threads: Vec<u32>,
    _server: Process,
}

impl Stage {
    pub(super) fn set() -> Result<Self> {
        ensure!(std::thread::available_parallelism()?.get() > 1, "needs two CPUs: one for the host in the middle");
        let ends = [[MIDDLE, SERVERS], [MIDDLE, CLIENTS], [SERVERS, CLIENTS]];
        let lab = Lab::joined(ends.map(Network::Cable).to_vec())?;
        lab.route(CLIENTS, INNER, (OUTER, MIDDLE))?;
        lab.route(SERVERS, OUTER, (INNER, MIDDLE))?;
        lab.host(MIDDLE).forwards()?;
        lab.like_cards()?;
        let mut threads = Vec::new();
        for (network, ends) in (0..).zip(ends) {
            for number in ends {
                let thread = fetched(lab.host(number), &interface(network))?;
                let cpu = if number == MIDDLE { CPU } else { OTHERS };
                run(Command::new("taskset").args(["-p", "-c", cpu, &thread.to_string()]))?;
                if number == MIDDLE {
                    threads.push(thread);
                } else {
                    // With a higher priority than other programs there, as a card's interrupts have; otherwise they
                    // wait for each other.
                    run(Command::new("chrt").args(["--fifo", "--pid", "1", &thread.to_string()]))?;
                }
            }
        }
        sink(lab.host(SERVERS))?;
        let mut server = bound(lab.host(SERVERS), &["reply", "--port", &SERVER.to_string()])?;
        server.said("listening", PATIENCE)?;
        Ok(Self { lab, threads, _server: server })
    }

    /// Returns how many small packets arrive at the servers' host while more are sent than it can handle.
    pub(super) fn packets(&self, peer: Peer, running: &Running, took: Duration, from: From) -> Result<Sample> {
        let direct = peer == Peer::Direct;
        let (cable, own) = if direct { (DIRECT, DIRECT) } else { (INNER, OUTER) };
        let arrived = || received(self.lab.host(SERVERS), &interface(cable));
        let own = interface(own);
        let card: &[&str] = if from == From::Card { &["--card", &own] } else { &[] };
        let mut pouring = self.client("pour", peer, took, card)?;
        pouring.said("begins", PATIENCE)?;
        let sample = self.sample(running, took, arrived)?;
        pouring.finish(PATIENCE)?.well()?;
        Ok(sample)
    }

    /// Returns how many connections are opened, used for one request and its response, and closed.
    pub(super) fn connections(&self, peer: Peer, running: &Running, took: Duration) -> Result<Sample> {
        let mut calling = self.client("call", peer, took, &[])?;
        calling.said("begins", PATIENCE)?;
        let mut sample = self.sample(running, took, || Ok(0))?;
        sample.count = calling.finish(PATIENCE)?.well()?.stdout.lines().last().context("no answer")?.parse()?;
        Ok(sample)
    }

    fn client(&self, verb: &str, peer: Peer, took: Duration, more: &[&str]) -> Result<Process> {
        let (to, seconds) = (peer.destination().to_string(), took.as_secs_f64().to_string());
        bound(self.lab.host(CLIENTS), &[&[verb, "--to", &to, "--seconds", &seconds], more].concat())
    }

    fn sample(&self, running: &Running, took: Duration, count: impl Fn() -> Result<u64>) -> Result<Sample> {
        let worked = || -> Result<u64> { self.threads.iter().chain(&running.workers).copied().map(runtime).sum() };
        let (begun, work, before) = (Instant::now(), worked()?, count()?);
        until(begun + took);
        let count = count()? - before;
        Ok(Sample { count, took: begun.elapsed(), worked: Duration::from_nanos(worked()? - work) })
    }
}

/// Runs a part of this benchmark on a CPU other than that of the host in the middle.
fn bound(host: &Host, arguments: &[&str]) -> Result<Process> {
    let this = env::current_exe()?;
    let this = this.to_str().context("a path that is not UTF-8")?;
    host.spawn(Path::new("taskset"), &[&["-c", OTHERS, this], arguments].concat())
}

/// Makes an end of a cable handle single frames in a thread of its own; returns that thread.
fn fetched(host: &Host, interface: &str) -> Result<u32> {
    let before = fetchers()?;
    // If segmentation is left to the card, packets of a veth bypass its queue (veth_skb_is_eligible_for_gro).
    ethtool(host.net(), interface, &["tso", "off", "tx-udp-segmentation", "off"])?;
    let threaded = format!("echo 1 > /sys/class/net/{interface}/threaded");
    // Not by nsenter: /sys shows the interfaces of the namespace in which it was mounted.
    run(Command::new("ip").args(["netns", "exec", host.net().name(), "sh", "-c", &threaded]))?;
    let new = fetchers()?.into_iter().find(|it| !before.contains(it));
    new.with_context(|| format!("no thread for {interface}"))
}

/// Returns the kernel threads that fetch packets, by process id.
fn fetchers() -> Result<Vec<u32>> {
    let processes = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let named =
        |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("napi/lab"));
    Ok(processes.filter(named).collect())
}

/// Drops the received datagrams once they are counted.
fn sink(host: &Host) -> Result<()> {
    let rule = format!("udp dport {SERVER} udp length {} drop", PAYLOAD + 8);
    for (nth, network) in [INNER, DIRECT].into_iter().enumerate() {
        let hook = format!("type filter hook ingress device {} priority 0;", interface(network));
        nft(host, &format!("table netdev sink{nth} {{\n chain in {{\n {hook}\n {rule}\n }}\n}}\n"))?;
    }
    Ok(())
}

/// Returns the packets that an interface has received.
fn received(host: &Host, interface: &str) -> Result<u64> {
    let said = host.net().enter(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
    let line =
        said.lines().find_map(|line| line.trim().strip_prefix(&format!("{interface}:"))?.split_whitespace().nth(1));
    Ok(line.with_context(|| format!("no {interface}"))?.parse()?)
}

/// Returns the CPU time of a process in nanoseconds.
fn runtime(process: u32) -> Result<u64> {
    let said = fs::read_to_string(format!("/proc/{process}/schedstat"))?;
    Ok(said.split_whitespace().next().context("an empty schedstat")?.parse()?)
}
