//! Clients on another host, host 4, that connect to a service port of host 1. The backends are on hosts 2 and 3, and
//! host 1 has no listener.

/// A client stays with its backend.
mod affinity;
/// The agent crashes, and its flows go on.
mod agent_crash;
/// Many bytes over interfaces of different MTU.
mod bulk;
/// The client, for all of these tests.
mod client;
/// Datagrams, whole and in fragments.
mod datagrams;
/// ICMP errors of routers and hosts.
mod errors;
/// Interfaces that are removed, recreated and renamed.
mod interfaces;
/// Backends on host 1 itself, and clients on the host of a backend.
mod local_backend;
/// Connections that stay while the table changes.
mod long_lived;
/// Real programs, unmodified.
mod real_programs;
/// All backends but one are replaced.
mod replace_all;
/// Settings of a service: drain, ejection, allow list, maxconn, expose.
mod settings;
/// Both ends close at the same time.
mod simultaneous_close;
/// A flood of SYNs.
mod syn_flood;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use proxymatic_common::ABI_VERSION;
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::lab::{Arms, CLIENT, Echo, Host, Lab, PATIENCE};
use serde_json::{Value, json};

use self::client::who;
use self::long_lived::Transfers;
use crate::fixtures::cluster::PORT;
use crate::fixtures::file_source::{FileSource, backend};

/// How much higher the port of a service with IPv6 backends is than that of the same service with IPv4 backends. With
/// both in one service, half of the slots are useless to a client. One client in 500,000 finds only such slots, and is
/// refused.
const FOR_IPV6: u16 = 1000;
/// New connections or sockets that reach both of two backends: they miss one by chance once in 10^11 times.
const FOR_TWO: usize = 40;
/// New connections that reach each of four backends: they miss one by chance once in 10^11 times.
const FOR_FOUR: usize = 100;

/// The path of remote clients' packets, and the hook that forwards them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    pub(crate) arms: Arms,
    xdp: bool,
}

const WAYS: [Way; 4] = [
    Way { arms: Arms::Two, xdp: false },
    Way { arms: Arms::One, xdp: false },
    Way { arms: Arms::Two, xdp: true },
    Way { arms: Arms::One, xdp: true },
];
/// The path of tests for which one path is enough.
const ROUTED: Way = WAYS[0];
const ONE_ARMED: Way = WAYS[1];

impl Way {
    /// Starts the hosts, joined in this way.
    fn lab(self) -> Result<Lab> {
        self.prepare(Lab::remote(self.arms)?)
    }

    fn prepare(self, lab: Lab) -> Result<Lab> {
        lab.host(1).forwards()?;
        if self.xdp {
            lab.like_cards()?;
        }
        Ok(lab)
    }

    /// The arguments of the agent for this path.
    fn arguments(self) -> Vec<String> {
        let interfaces = self.arms.interfaces().into_iter().flat_map(|it| ["--interface".to_owned(), it]);
        let xdp = ["--xdp", "native"].map(str::to_owned).into_iter().filter(|_| self.xdp);
        interfaces.chain(xdp).collect()
    }

    /// Starts an agent on host 1 that exposes these services to other hosts.
    fn serve<'lab>(self, lab: &'lab Lab, services: &[Value]) -> Result<FileSource<'lab>> {
        let arguments = self.arguments();
        let written = FileSource::start(lab, services, &arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
        when_marked(lab.host(1), self.arms.interfaces().len())?;
        if self.xdp {
            // Any program would do; this one does nothing to packets that leave host 1.
            let program = format!("v{ABI_VERSION}/programs/xdp_ingress");
            lab.takes_returns(1, 0, &lab.host(1).pins().join(program))?;
        }
        Ok(written)
    }

    /// The service addresses for clients, of either family.
    fn service_addresses(self) -> [SocketAddr; 2] {
        self.arms.service_addresses().map(|address| at(address, PORT))
    }
}

/// The address of a service, given its port for IPv4.
fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, if address.is_ipv4() { port } else { port + FOR_IPV6 })
}

/// Waits until the hooks are on this many interfaces of a host. A thread of its own attaches them, while the agent
/// publishes its services, and marks the interfaces in the map last.
pub(crate) fn when_marked(host: &Host, interfaces: usize) -> Result<()> {
    eventually_ok(&format!("the hooks are on {interfaces} interfaces"), PATIENCE, || {
        let said = host.proxymatic(&["-j", "map", "dump", "INTERFACES"])?.well()?.stdout;
        let rows: Vec<Value> = serde_json::from_str(&said)?;
        let marked = rows.iter().filter(|row| row["kind"] == "attached" || row["kind"] == "accelerated").count();
        ensure!(marked == interfaces, "{said}");
        Ok(())
    })
}

/// A service of both protocols with backends `a` and `b`, and its agent.
struct Remote<'lab> {
    lab: &'lab Lab,
    way: Way,
    written: FileSource<'lab>,
    echoes: Vec<Echo>,
}

impl<'lab> Remote<'lab> {
    /// Starts it with a backend on host 2 and one on host 3.
    fn start(lab: &'lab Lab, way: Way) -> Result<Self> {
        Self::of(lab, way, vec![lab.host(2).echo(7001, 'a')?, lab.host(3).echo(7001, 'b')?])
    }

    fn of(lab: &'lab Lab, way: Way, echoes: Vec<Echo>) -> Result<Self> {
        let written = way.serve(lab, &both(&echoes, &[]))?;
        Ok(Self { lab, way, written, echoes })
    }

    /// Fails unless new connections to each address are served, by exactly these backends, at most four.
    fn answers_come_from(&self, names: &str) -> Result<()> {
        let count = if names.len() > 2 { FOR_FOUR } else { FOR_TWO };
        for to in self.way.service_addresses() {
            let seen: BTreeSet<char> = (0..count).map(|_| who(self.lab.host(CLIENT), to)).collect::<Result<_>>()?;
            ensure!(seen == names.chars().collect(), "{to} is answered by {seen:?}, not by {names}");
        }
        Ok(())
    }

    /// Starts long transfers from the clients' host, half of them to each address.
    fn transfers(&self, count: usize) -> Result<Transfers> {
        Transfers::start(self.lab.host(CLIENT), &self.way.service_addresses(), count)
    }
}

/// The addresses of these backends, in the order of rows.
fn places(echoes: &[Echo]) -> Vec<SocketAddr> {
    let mut places: Vec<_> = echoes.iter().flat_map(|echo| echo.places).collect();
    places.sort();
    places
}

/// A service for each protocol and family, exposed to other hosts, with more fields of the file.
fn both(echoes: &[Echo], more: &[(&str, Value)]) -> Vec<Value> {
    ["tcp", "udp"].map(|protocol| exposed(protocol, protocol, PORT, &places(echoes), more)).concat()
}

/// Services that are exposed to other hosts: one for the backends of each family, see [`FOR_IPV6`].
fn exposed(name: &str, protocol: &str, port: u16, places: &[SocketAddr], more: &[(&str, Value)]) -> Vec<Value> {
    let (four, six): (Vec<SocketAddr>, Vec<_>) = places.iter().partition(|place| place.is_ipv4());
    let services = [(name.to_owned(), port, four), (format!("{name}-ipv6"), port + FOR_IPV6, six)];
    let service = |(name, port, places): (String, u16, Vec<SocketAddr>)| {
        let backends: Vec<_> = places.into_iter().map(backend).collect();
        let mut service =
            json!({ "name": name, "protocol": protocol, "port": port, "expose": true, "backends": backends });
        for (key, value) in more {
            service[*key] = value.clone();
        }
        service
    };
    services.into_iter().filter(|(.., places)| !places.is_empty()).map(service).collect()
}

/// Waits until this many flows are counted as open on host 1. The error lists the connections that the hooks know.
fn open_is(lab: &Lab, wanted: u64) -> Result<()> {
    let waited = eventually_ok(&format!("{wanted} are open"), PATIENCE, || {
        let open = lab.host(1).open_connections()?;
        ensure!(open == wanted, "{open}");
        Ok(())
    });
    waited.with_context(|| conntrack(lab))
}

/// Returns the connections of remote clients on host 1 that are not counted as closed.
fn conntrack(lab: &Lab) -> String {
    match lab.host(1).proxymatic(&["map", "dump", "CONNTRACK"]) {
        Ok(dumped) => dumped.stdout.lines().filter(|row| !row.contains("closed")).collect::<Vec<_>>().join("\n"),
        Err(error) => format!("{error:#}"),
    }
}
