//! What the agent does about backends that fail or are gone, on a data plane in memory.

#![expect(clippy::unwrap_used, reason = "a panic in a helper of a test is the report too")]

mod scenario;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use proxymatic_common::{Event as HookEvent, EventKind, PROTOCOL_TCP, Port};
use proxymatic_user::{
    agent::{Agent, Event, WorkerHandles},
    backend_probe::{Answered, Order},
    dataplane::{Counts, Faults, Memory},
    model::{Backend, Protocol, Service, ServiceKey, Snapshot, State, Weight},
    plan::Capacity,
    sockets::{BackendRef, SweepReport, SweepRequest},
    source::{Report, SourceId},
};
use tokio::sync::mpsc;

use self::scenario::{Driven, with_faults_and_without};

const SECOND: Duration = Duration::from_secs(1);

/// An agent with one service, and the receivers of its orders.
struct Stage {
    agent: Driven,
    probes: mpsc::UnboundedReceiver<Order>,
    jobs: mpsc::Receiver<SweepRequest>,
    now: Instant,
}

impl Stage {
    fn start(faults: Faults, protocol: Protocol, hosts: u8) -> Self {
        let mut stage = Self::adopt(Memory::new(Capacity::default(), faults));
        stage.answer(protocol, 1..=hosts);
        stage
    }

    /// Starts an agent on maps that an earlier one may have left.
    fn adopt(plane: Memory) -> Self {
        let (to_probes, probes) = mpsc::unbounded_channel();
        let (to_sweeps, jobs) = mpsc::channel(1);
        let helpers = WorkerHandles { probes: Some(to_probes), sweeps: Some(to_sweeps), ..WorkerHandles::default() };
        let agent = Driven::new(Agent::adopt(plane, &[SourceId::Marathon]).unwrap().with_workers(helpers));
        Self { agent, probes, jobs, now: Instant::now() }
    }

    /// Marathon answers with a task on each of these hosts.
    fn answer(&mut self, protocol: Protocol, hosts: impl Iterator<Item = u8>) {
        let backend = |host: u8| Backend {
            task: format!("task-{host}"),
            address: IpAddr::from([10, 0, 0, host]),
            port: 31_000,
            weight: Weight::default(),
            maxconn: 2,
            state: State::Active,
        };
        let service = Service { name: "/web".into(), backends: hosts.map(backend).collect(), ..Service::default() };
        let services = BTreeMap::from([(ServiceKey::host(1234, protocol), service.into())]);
        let snapshot = Snapshot { services, warnings: Vec::new() };
        self.handle(Event::Source(Report::Snapshot { source: SourceId::Marathon, snapshot, at: self.now }));
    }

    fn handle(&mut self, event: Event) {
        self.agent.handle(event, self.now);
    }

    fn ticks(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.now += SECOND;
            self.handle(Event::Tick);
        }
    }

    /// Returns id and generation of the backend on a host.
    fn id(&self, host: u8) -> BackendRef {
        let task = format!("task-{host}");
        let tables = self.agent.tables();
        // A plan that was given up leaves one more backend for the task, in no service that has a frontend.
        let found = |id: u32, of: u32| {
            tables.services().get(&of).is_some_and(|it| it.frontend.is_some() && it.backends.contains(&id))
        };
        let mut backends = tables.backends().iter();
        let found = backends.find(|(id, entry)| entry.task == task && found(**id, entry.backend.service));
        let (id, entry) = found.unwrap();
        BackendRef { backend: *id, generation: entry.backend.generation }
    }

    /// The kernel reports that the backend on a host has failed and is ejected.
    fn fails(&mut self, host: u8) {
        let BackendRef { backend, generation } = self.id(host);
        let event = HookEvent {
            kind: EventKind::FAILED,
            service: self.agent.tables().backends()[&backend].backend.service,
            backend,
            generation,
            ejected_ms: 1000,
            destination_port: Port::new(1234),
            protocol: PROTOCOL_TCP,
            ..HookEvent::EMPTY
        };
        self.handle(Event::HookEvents(vec![event]));
    }

    fn answers(&mut self, host: u8) {
        let BackendRef { backend, generation } = self.id(host);
        self.handle(Event::ProbeSucceeded(Answered { backend, generation }));
    }

    fn ejected(&self, host: u8) -> bool {
        self.agent.plane().counts.get(&self.id(host).backend).is_some_and(|counts| !counts.ejected.is_zero())
    }

    /// Returns the hosts whose backends have slots.
    fn drawn(&self) -> Vec<u8> {
        let tables = self.agent.tables();
        // A plan that was given up leaves a service without a frontend, which no hook finds.
        let services = tables.services().values().filter(|service| service.frontend.is_some());
        let slots = services.flat_map(|service| tables.slots_of(service.slot_range));
        let host = |task: &str| task.trim_start_matches("task-").parse().unwrap();
        let mut hosts: Vec<u8> = slots.map(|slot| host(&tables.backends()[&slot.backend()].task)).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }

    /// Returns the orders since the last call.
    fn ordered(&mut self) -> Vec<Order> {
        std::iter::from_fn(|| self.probes.try_recv().ok()).collect()
    }

    /// Takes the sweep request from the channel.
    fn job(&mut self) -> Option<SweepRequest> {
        self.jobs.try_recv().ok()
    }

    fn swept(&mut self, census: Option<BTreeMap<BackendRef, u64>>) {
        self.handle(Event::SweepDone(Box::new(SweepReport { census, ..SweepReport::default() })));
    }
}

#[test]
fn failed_backend_is_probed_and_ejected_until_it_answers() {
    with_faults_and_without(|faults| {
        let mut stage = Stage::start(faults, Protocol::Tcp, 4);
        stage.fails(1);
        let BackendRef { backend, generation } = stage.id(1);
        let to = SocketAddr::from(([10, 0, 0, 1], 31_000));
        assert_eq!(stage.ordered(), [Order::Watch { backend, generation, to }]);
        stage.fails(1);
        stage.ticks(5);
        assert!(stage.ejected(1) && !stage.ejected(2));
        assert_eq!(stage.ordered(), [], "the probe is under way");
        stage.answers(1);
        assert!(!stage.ejected(1));
        stage.fails(1);
        assert_eq!(stage.ordered().len(), 1, "it has failed again");
    });
}

#[test]
fn at_most_half_of_the_backends_stay_ejected() {
    with_faults_and_without(|faults| {
        let mut stage = Stage::start(faults, Protocol::Tcp, 5);
        for host in 1..=5 {
            stage.now += SECOND;
            stage.fails(host);
        }
        stage.ticks(20);
        let out: Vec<_> = (1..=5).filter(|host| stage.ejected(*host)).collect();
        assert_eq!(out, [1, 2]);
        assert_eq!(stage.ordered().len(), 5, "all are probed");
        assert_eq!(stage.drawn(), [3, 4, 5]);
    });
}

#[test]
fn parked_backend_gets_its_slots_back_with_its_answer() {
    with_faults_and_without(|faults| {
        let mut stage = Stage::start(faults, Protocol::Tcp, 4);
        stage.fails(2);
        stage.ticks(9);
        assert_eq!(stage.drawn(), [1, 2, 3, 4]);
        stage.ticks(2);
        assert_eq!(stage.drawn(), [1, 3, 4]);
        stage.answers(2);
        assert_eq!(stage.drawn(), [1, 2, 3, 4]);
    });
}

#[test]
fn ejection_without_an_event_is_found() {
    with_faults_and_without(|faults| {
        let mut stage = Stage::start(faults, Protocol::Tcp, 4);
        let BackendRef { backend, generation } = stage.id(3);
        stage.agent.plane_mut().counts.insert(backend, Counts { ejected: SECOND, ..Counts::default() });
        stage.ticks(1);
        let to = SocketAddr::from(([10, 0, 0, 3], 31_000));
        assert_eq!(stage.ordered(), [Order::Watch { backend, generation, to }]);
    });
}

#[test]
fn probe_of_a_gone_backend_ends() {
    with_faults_and_without(|faults| {
        let mut stage = Stage::start(faults, Protocol::Tcp, 4);
        stage.fails(4);
        let backend = stage.id(4).backend;
        stage.answer(Protocol::Tcp, 1..=3);
        stage.ticks(1);
        assert_eq!(stage.ordered().last(), Some(&Order::Leave { backend }));
    });
}

#[test]
fn udp_backends_are_not_probed() {
    with_faults_and_without(|faults| {
        let mut stage = Stage::start(faults, Protocol::Udp, 4);
        stage.fails(1);
        stage.ticks(3);
        assert_eq!(stage.ordered(), []);
    });
}

#[test]
fn full_backends_are_parked_only_in_large_services() {
    with_faults_and_without(|faults| {
        for (hosts, left) in [(16, 16), (17, 16)] {
            let mut stage = Stage::start(faults, Protocol::Tcp, hosts);
            let backend = stage.id(1).backend;
            stage.agent.plane_mut().counts.insert(backend, Counts { opened: 2, ..Counts::default() });
            stage.ticks(1);
            assert_eq!(stage.drawn().len(), left, "of {hosts}");
            stage.agent.plane_mut().counts.insert(backend, Counts { opened: 2, closed: 1, ..Counts::default() });
            stage.ticks(1);
            assert_eq!(stage.drawn().len(), usize::from(hosts));
        }
    });
}

#[test]
fn gone_backend_is_swept_twice() {
    with_faults_and_without(|faults| {
        let mut stage = Stage::start(faults, Protocol::Udp, 2);
        stage.ticks(1);
        assert!(stage.job().is_some_and(|job| job.census && job.gone.is_empty()));
        stage.swept(None);
        let gone = stage.id(2);
        stage.answer(Protocol::Udp, 1..=1);
        for _ in 0..2 {
            let job = stage.job().unwrap();
            assert!(job.gone.contains_key(&gone) && job.gone.len() == 1 && !job.census, "{job:?}");
            assert!(!job.gone[&gone].tcp);
            stage.swept(None);
            stage.ticks(1);
        }
        stage.ticks(3);
        assert_eq!(stage.job(), None);
    });
}

#[test]
fn next_agent_sweeps_for_a_gone_backend() {
    with_faults_and_without(|faults| {
        let mut stage = Stage::start(faults, Protocol::Udp, 2);
        let gone = stage.id(2);
        stage.answer(Protocol::Udp, 1..=1);
        // The agent dies here, before the sweep.
        let mut next = Stage::adopt(stage.agent.plane().clone());
        next.ticks(1);
        assert!(next.job().is_some_and(|job| job.gone.contains_key(&gone)));
    });
}

#[test]
fn gone_backend_keeps_its_tcp_sockets() {
    with_faults_and_without(|faults| {
        let mut stage = Stage::start(faults, Protocol::Tcp, 2);
        stage.ticks(1);
        assert!(stage.job().is_some());
        stage.swept(None);
        stage.answer(Protocol::Tcp, 1..=1);
        stage.ticks(3);
        assert_eq!(stage.job(), None);
    });
}

#[test]
fn counter_that_differs_in_two_censuses_is_corrected() {
    with_faults_and_without(|faults| {
        let mut stage = Stage::start(faults, Protocol::Tcp, 2);
        let owner = stage.id(1);
        let service = stage.agent.tables().backends()[&owner.backend].backend.service;
        let counts = Counts { opened: 7, closed: 1, ..Counts::default() };
        stage.agent.plane_mut().counts.insert(owner.backend, counts);
        stage.agent.plane_mut().service_counts.insert(service, counts);
        // The first census began before there was a connection.
        assert!(stage.job().is_some());
        stage.swept(None);
        let mut at = Vec::new();
        for second in 1..=100 {
            stage.ticks(1);
            if stage.job().is_some_and(|job| job.census) {
                at.push(second);
                stage.swept(Some([(owner, 4)].into()));
            }
        }
        assert_eq!(at, [60, 70], "each minute, and 10 s after one that found a difference");
        let right = Counts { closed: 3, ..counts };
        assert_eq!(stage.agent.plane().counts[&owner.backend], right);
        assert_eq!(stage.agent.plane().service_counts[&service], right);
    });
}

#[test]
fn incomplete_census_corrects_nothing_and_is_a_warning() {
    with_faults_and_without(|faults| {
        let mut stage = Stage::start(faults, Protocol::Tcp, 2);
        let owner = stage.id(1);
        let counts = Counts { opened: 7, closed: 1, ..Counts::default() };
        stage.agent.plane_mut().counts.insert(owner.backend, counts);
        for _ in 0..300 {
            stage.ticks(1);
            if stage.job().is_some() {
                let limitation = Some("run the container with --pid=host".into());
                stage.handle(Event::SweepDone(Box::new(SweepReport { limitation, ..SweepReport::default() })));
            }
        }
        assert_eq!(stage.agent.plane().counts[&owner.backend], counts);
        let warnings = stage.agent.status(stage.now).warnings;
        assert!(warnings.iter().any(|warning| warning.reason.contains("--pid=host")), "{warnings:?}");
    });
}
