//! Comparison with everything that a user might choose instead, on one machine.

mod contender;
mod measurement;
mod report;
mod targets;

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Context as _, Result};
use proxymatic_tests::{
    lab::{Lab, PATIENCE},
    process::Process,
};

pub(crate) use self::report::Report;
use self::{
    contender::{Contender, Work},
    measurement::{Part, Row},
};
use crate::{
    machine::Machine,
    output::Output,
    peers::{IPERF, PLACES, Peer, Shape, Task},
    programs::{program, version},
};

/// The same work through no forwarder, through this project, and through HAProxy, Pen, nginx, nftables and iptables.
#[derive(Debug, clap::Parser)]
pub(crate) struct Local {
    /// Three rounds instead of nine, and each policy and shape except the main one only once less.
    #[arg(long)]
    quick: bool,
    /// Install missing peers by apt. Without it they are left out and listed.
    #[arg(long)]
    install: bool,
    /// Rounds; each measures every case once, in another order.
    #[arg(long)]
    rounds: Option<usize>,
    /// Only the part with this many services.
    #[arg(long)]
    services: Option<u16>,
    #[command(flatten)]
    output: Output,
}

/// The policies except the default.
const POLICIES: [&str; 5] = ["random", "roundrobin", "source", "latency", "maglev"];
const OTHERS: [Peer; 6] = [
    Peer::Haproxy { splice: false },
    Peer::Haproxy { splice: true },
    Peer::Pen,
    Peer::Nginx,
    Peer::Nftables,
    Peer::Iptables,
];

/// One entry of a part: the peer, the number of services, and how many of them get connections.
struct Entry {
    name: String,
    peer: Peer,
    shape: Shape,
    destination: u16,
}

impl Local {
    pub(crate) fn run(&self) -> Result<()> {
        self.output.put(&self.measure()?)
    }

    /// The options of `all`.
    pub(crate) fn new(quick: bool) -> Self {
        Self { quick, install: false, rounds: None, services: None, output: Output::default() }
    }

    /// Measures all parts.
    pub(crate) fn measure(&self) -> Result<Report> {
        let begun = Instant::now();
        let rounds = self.rounds.unwrap_or(if self.quick { 3 } else { 9 });
        let parts = [
            (Shape { services: 1, backends: 2 }, &Work::ALL[..], false),
            (Shape { services: 1, backends: 200 }, &Work::CONNECTIONS[..], true),
            (Shape { services: 100, backends: 20 }, &Work::CONNECTIONS[..], false),
            (Shape { services: 10_000, backends: 2 }, &Work::CONNECTIONS[..], false),
        ];
        let (mut measured, mut skipped, mut versions) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        for (shape, works, policies) in parts {
            if self.services.is_some_and(|only| only != shape.services) {
                continue;
            }
            let mut entries = entries(shape, policies);
            entries.retain(|entry| {
                let why = entry.peer.skipped(shape);
                if let Some(why) = &why {
                    let services = shape.services;
                    skipped.insert(entry.name.clone(), format!("{why} (with {services} services)"));
                }
                why.is_none()
            });
            let known = entries.iter().filter_map(|entry| Some((entry.name.clone(), entry.peer.version()?)));
            versions.extend(known);
            measured.push(part(shape, works, &entries, rounds)?);
        }
        for tool in [("wrk", "-v"), ("iperf3", "--version")] {
            versions.extend(version(tool.0, &[tool.1]).map(|version| (tool.0.to_owned(), version)));
        }
        let seconds = begun.elapsed().as_secs_f64();
        Ok(Report { machine: Machine::this(), versions, skipped, rounds, seconds, parts: measured })
    }
}

fn entries(shape: Shape, policies: bool) -> Vec<Entry> {
    let entry = |peer: Peer| Entry { name: peer.name(), peer, shape, destination: shape.services };
    let mut entries = vec![entry(Peer::None), entry(Peer::Ours("leastconn"))];
    if policies {
        entries.extend(POLICIES.map(|policy| entry(Peer::Ours(policy))));
    }
    if shape.services > 1000 {
        // The cost of many services, in the same rounds: connects to all of them, to one of them, and to a single
        // service.
        let ours = Peer::Ours("leastconn");
        let alone = Shape { services: 1, ..shape };
        entries.push(Entry { name: "proxymatic, one destination".into(), destination: 1, ..entry(ours) });
        entries.push(Entry { name: "proxymatic, 1 service".into(), shape: alone, destination: 1, ..entry(ours) });
        let nftables = Peer::Nftables;
        entries.push(Entry { name: "nftables, 1 service".into(), shape: alone, destination: 1, ..entry(nftables) });
    }
    entries.extend(OTHERS.map(entry));
    entries
}

/// Measures one shape: every entry on a host of its own, the backends on the first host.
fn part(shape: Shape, works: &[Work], entries: &[Entry], rounds: usize) -> Result<Part> {
    let hosts = u8::try_from(entries.len() + 1).context("too many hosts")?;
    let lab = Lab::start(hosts)?;
    let backends = lab.host(1);
    let _servers = serve(&lab)?;
    let mut contenders = Vec::new();
    for (host, entry) in (2..).zip(entries) {
        let host = lab.host(host);
        // More local ports than the usual 28,000, and none that a service has.
        host.net().sysctl("net/ipv4/ip_local_port_range", "33000 64999")?;
        let folder = lab.run_dir().join(format!("peer-{host}", host = host.address()));
        let task = Task { host, folder, backend: backends.address(), services: entry.shape.services() };
        let processes = entry.peer.start(&task)?;
        contenders.push(Contender::new(entry.peer, entry.shape, entry.destination, host, backends, processes)?);
    }
    // Once without a measurement, to find entries that are not ready or fail.
    for (contender, entry) in contenders.iter_mut().zip(entries) {
        contender.warm_up().with_context(|| entry.name.clone())?;
    }
    let count = contenders.len();
    for round in 0..rounds {
        for work in works {
            for step in 0..count {
                // Another order each round, so that no case always follows the same other.
                let nth = (step + round * 3) % count;
                contenders[nth].measure(*work).with_context(|| format!("{}, {work:?}", entries[nth].name))?;
            }
        }
    }
    let row = |(contender, entry): (Contender<'_>, &Entry)| Row { name: entry.name.clone(), values: contender.values };
    Ok(Part { shape, rows: contenders.into_iter().zip(entries).map(row).collect() })
}

/// Starts the backends on host 1.
fn serve(lab: &Lab) -> Result<Vec<Process>> {
    let host = lab.host(1);
    let address = host.address().to_string();
    let this = std::env::current_exe()?;
    let ports = PLACES.to_string();
    let arguments = ["answer", "--address", &address, "--tcp-ports", &ports, "--udp-ports", &ports, "--announce"];
    let mut answers = host.spawn(&this, &arguments)?;
    answers.said("listening on", PATIENCE)?;
    let bulk = ["-s", "-B", &address, "-p", &IPERF.to_string(), "--forceflush"];
    let mut bulk = host.spawn(&program("iperf3")?, &bulk)?;
    bulk.said("Server listening", PATIENCE)?;
    Ok(vec![answers, bulk])
}
