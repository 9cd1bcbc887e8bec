//! The cost of the hooks per call, compared with a host without any program.
//!
//! UDP connect(2) is measured, since it involves no packet, no peer and no scheduler.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    net::{Ipv4Addr, UdpSocket},
    path::PathBuf,
    time::Instant,
};

use anyhow::{Context as _, Result};
use proxymatic_common::{HookFlags, Loopback};
use proxymatic_tests::{
    cgroup::Cgroup,
    lab::{Host, Lab, SocketProgram},
};
use proxymatic_user::{
    agent::{Agent, Event},
    dataplane::kernel::{Kernel, Maps, Pins, RemoteClients, Settings},
    model::{self, Backend, Policy, Protocol, Service, ServiceKey, Snapshot, State, Weight},
    plan::Capacity,
    source::{Report, SourceId},
};

use crate::statistics::median;

/// The nanoseconds that the hooks add to a call, for each policy, and for few and many services and backends.
#[derive(Debug, clap::Parser)]
pub(crate) struct Hooks {
    /// Number of services in the cases with many.
    #[arg(long, default_value_t = 10_000)]
    services: u16,
    /// Rounds; each measures every case once, in another order.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Only cases with this in their names: for a profiler.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// The first service port.
const FIRST: u16 = 20_000;
/// A port without a service.
const FOREIGN: u16 = 9;
/// The address of the backends, which need not listen.
const BACKEND: u16 = 9_000;

/// One data plane: number of services, number of backends of each, policy, and whether hooks look for listeners.
#[derive(Clone, Copy)]
struct Plane {
    name: &'static str,
    services: u16,
    backends: u16,
    policy: Policy,
    looks: HookFlags,
    /// Whether the agent has swept for listeners on the service ports, as it does within a second.
    looked: bool,
}

/// One case.
struct Case {
    name: String,
    plane: usize,
    order: String,
    /// The work without programs that it is compared with.
    bare: usize,
    took: Vec<f64>,
}

impl Case {
    fn measure(&mut self, spinners: &mut [SocketProgram]) -> Result<()> {
        let said = spinners[self.plane].tell(&self.order)?;
        self.took.push(said.parse().with_context(|| said.clone())?);
        Ok(())
    }
}

impl Hooks {
    pub(crate) fn run(&self) -> Result<()> {
        let lab = Lab::start(1)?;
        let host = lab.host(1);
        let planes = self.planes();
        // A socket must be bound at the destination of datagrams, or each is answered with an error.
        let _sink = host.net().enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, BACKEND)))??;
        let names = (0..=planes.len()).map(|n| format!("plane{n}"));
        let cgroups = names.map(|name| host.cgroup().child(&name)).collect::<Result<Vec<_>>>()?;
        let loops = env::current_exe()?;
        let spinners = cgroups.iter().map(|cgroup| host.program_in(cgroup, &loops, &["syscall-loop"]));
        let mut spinners = spinners.collect::<Result<Vec<_>>>()?;
        let (mut bare, mut cases) = self.cases(host, &planes);
        cases.retain(|case| self.only.as_ref().is_none_or(|only| case.name.contains(only)));
        anyhow::ensure!(
            !cases.is_empty(),
            "no case has {:?} in its name; without --only all are measured, and named",
            self.only.as_deref().unwrap_or_default()
        );
        for round in 0..self.rounds {
            // Before any program is attached: the kernel then skips even the test for programs.
            for case in &mut bare {
                case.measure(&mut spinners)?;
            }
            let mut agents = Vec::new();
            for (cgroup, plane) in cgroups[1..].iter().zip(&planes) {
                agents.push(start(host, cgroup, *plane)?);
            }
            let count = cases.len();
            for step in 0..count {
                // Another order each round, so that no case always follows the same other.
                cases[(step + round * 5) % count].measure(&mut spinners)?;
            }
            drop(agents);
            for cgroup in &cgroups[1..] {
                Pins::at(&pins(host, cgroup)?).detach()?;
            }
        }
        self.report(&bare, &cases);
        Ok(())
    }

    fn planes(&self) -> Vec<Plane> {
        let looks = HookFlags::LISTENERS;
        let one = |name, backends, policy| Plane { name, services: 1, backends, policy, looks, looked: true };
        vec![
            one("leastconn", 2, Policy::Leastconn),
            one("leastconn", 200, Policy::Leastconn),
            Plane { services: self.services, ..one("leastconn", 2, Policy::Leastconn) },
            Plane { looked: false, ..one("leastconn, listeners asked for", 2, Policy::Leastconn) },
            Plane { looks: HookFlags::default(), ..one("leastconn, service-wins", 2, Policy::Leastconn) },
            one("random", 200, Policy::Random),
            one("roundrobin", 200, Policy::Roundrobin),
            one("source", 200, Policy::Source),
            one("latency", 200, Policy::Latency),
            one("maglev", 200, Policy::Maglev),
        ]
    }

    fn cases(&self, host: &Host, planes: &[Plane]) -> (Vec<Case>, Vec<Case>) {
        let own = host.address();
        let case = |name: String, plane, order: String, bare| Case { name, plane, order, bare, took: Vec::new() };
        let order = |work: &str, ports: u16| format!("{work} 127.0.0.1 {FIRST} {ports}");
        let bare =
            ["reconnect", "fresh", "send"].map(|work| case(work.to_owned(), 0, format!("{work} {own} {BACKEND} 1"), 0));
        let mut cases = vec![
            case("in a cgroup without programs".into(), 0, format!("reconnect {own} {BACKEND} 1"), 0),
            case("miss: a port that is no service".into(), 1, format!("reconnect {own} {FOREIGN} 1"), 0),
            case("miss: a service port, another address".into(), 1, format!("reconnect 10.77.0.9 {FIRST} 1"), 0),
            case("miss, on a new socket".into(), 1, format!("fresh {own} {FOREIGN} 1"), 1),
            case("datagram, miss".into(), 1, format!("send {own} {BACKEND} 1"), 2),
            case("datagram, repeated".into(), 1, order("send", 1), 2),
        ];
        for (n, plane) in planes.iter().enumerate() {
            let Plane { name, services, backends, .. } = plane;
            let of = format!("{name}, {services} services, {backends} backends");
            cases.push(case(format!("hit: {of}"), n + 1, order("reconnect", *services), 0));
            if n < 3 {
                cases.push(case(format!("hit, on a new socket: {of}"), n + 1, order("fresh", *services), 1));
            }
            if *services > 1 {
                cases.push(case(format!("hit: {of}, one destination"), n + 1, order("reconnect", 1), 0));
            }
        }
        (bare.into(), cases)
    }

    fn report(&self, bare: &[Case], cases: &[Case]) {
        println!("nanoseconds a call, medians of {} interleaved rounds", self.rounds);
        println!("{:>8}  {:>8}  {:>15}", "extra", "whole", "min .. max");
        for case in bare {
            println!("{:>8}  {:>8.0}  {}  bare {}", "", median(&case.took), spread(&case.took), case.name);
        }
        for case in cases {
            let without = &bare[case.bare].took;
            let extra: Vec<f64> = case.took.iter().zip(without).map(|(with, without)| with - without).collect();
            println!("{:>8.0}  {:>8.0}  {}  {}", median(&extra), median(&case.took), spread(&case.took), case.name);
        }
    }
}

fn spread(values: &[f64]) -> String {
    let (least, most) = values.iter().fold((f64::MAX, 0_f64), |(a, b), x| (a.min(*x), b.max(*x)));
    format!("{least:>6.0} .. {most:>5.0}")
}

/// The pins of a cgroup's data plane.
fn pins(host: &Host, cgroup: &Cgroup) -> Result<PathBuf> {
    Ok(host.pins().join(cgroup.path().file_name().context("a cgroup has a name")?))
}

/// A data plane for one cgroup, published by the agent itself.
fn start(host: &Host, cgroup: &Cgroup, plane: Plane) -> Result<Agent<Kernel>> {
    let settings = Settings {
        bpffs: pins(host, cgroup)?,
        cgroup: Some(cgroup.path().to_owned()),
        loopback: Loopback::HOST,
        remote: RemoteClients::default(),
        capacity: Capacity { backends: 32_768, slots: 65_536, ..Capacity::default() },
        hook_flags: plane.looks,
        bypass_mark: 0,
        event_sample_rate: 0,
        log: None,
    };
    let kernel = host.net().enter(|| Kernel::start(&settings))??;
    let mut agent = Agent::adopt(kernel, &[SourceId::Marathon])?;
    let now = Instant::now();
    agent.handle(Event::Addresses(BTreeSet::from([host.address().into()])), now);
    let services: BTreeMap<_, _> = (0..plane.services)
        .map(|n| (ServiceKey::host(FIRST + n, Protocol::Udp), service(host, n, plane).into()))
        .collect();
    let snapshot = Snapshot { services, warnings: Vec::new() };
    agent.handle(Event::Source(Report::Snapshot { source: SourceId::Marathon, snapshot, at: now }), now);
    if plane.looked {
        let maps = Maps::open(&Pins::at(&pins(host, cgroup)?))?;
        for load in agent.tables().services().keys().filter_map(|id| maps.service_load(*id)) {
            load.no_listener_seq.set(load.bind_seq.get());
        }
    }
    Ok(agent)
}

fn service(host: &Host, n: u16, plane: Plane) -> Service {
    let backend = |k: u16| Backend {
        task: format!("bench.{n}.{k}"),
        // All backends have the same address, which does not affect the cost of the choice.
        address: host.address().into(),
        port: BACKEND,
        weight: Weight::default(),
        maxconn: 0,
        state: State::Active,
    };
    Service {
        name: format!("/bench/{n}"),
        owner: None,
        backends: (0..plane.backends).map(backend).collect(),
        settings: model::Settings { policy: plane.policy, ..model::Settings::default() },
        ..Service::default()
    }
}
