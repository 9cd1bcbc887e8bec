//! When the agent looks for listeners, and what it writes about them, on a data plane in memory.

#![expect(clippy::unwrap_used, reason = "a panic in a helper of a test is the report too")]

mod scenario;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use proxymatic_common::{
    Address, Event as HookEvent, EventKind, ListenerFlags, ListenerKey, PROTOCOL_TCP, PROTOCOL_UDP, Port,
};
use proxymatic_user::{
    agent::{Agent, Event, WorkerHandles},
    dataplane::{Faults, ListenerScope, ListenerSeq, Memory},
    model::{Backend, Protocol, Service, ServiceKey, Snapshot, State, Weight},
    plan::Capacity,
    sockets::{Listening, SweepReport, SweepRequest},
    source::{Report, SourceId},
};
use tokio::sync::mpsc;

use self::scenario::{Driven, with_faults_and_without};

const WEB: u16 = 1234;

/// An agent on 192.0.2.1, and the receiver of its sweep requests.
struct Stage {
    agent: Driven,
    jobs: mpsc::Receiver<SweepRequest>,
    now: Instant,
}

impl Stage {
    fn start(faults: Faults, scope: Option<ListenerScope>, services: &[(u16, Protocol)]) -> Self {
        let mut plane = Memory::new(Capacity::default(), faults);
        plane.scope = scope;
        let (sweeps, jobs) = mpsc::channel(1);
        let helpers = WorkerHandles { sweeps: Some(sweeps), ..WorkerHandles::default() };
        let agent = Driven::new(Agent::adopt(plane, &[SourceId::File]).unwrap().with_workers(helpers));
        let mut stage = Self { agent, jobs, now: Instant::now() };
        stage.handle(Event::Addresses([IpAddr::from([192, 0, 2, 1])].into()));
        stage.answer(services, [10, 0, 0, 1], 31_000);
        if scope.is_some() {
            // Listeners that are older than the agent are known before it publishes a service.
            assert!(stage.agent.tables().frontends().is_empty());
            let first = stage.jobs.try_recv().unwrap();
            assert_eq!(first, SweepRequest { listeners: scope, ..SweepRequest::default() });
            stage.handle(Event::SweepDone(listening(&[]).into()));
        }
        stage
    }

    /// The file has these services, each with one backend at this address.
    fn answer(&mut self, services: &[(u16, Protocol)], address: [u8; 4], port: u16) {
        let backend = Backend {
            task: "task".into(),
            address: IpAddr::from(address),
            port,
            weight: Weight::default(),
            maxconn: 0,
            state: State::Active,
        };
        let service = Service { name: "/web".into(), backends: vec![backend], ..Service::default() };
        let services = services.iter().map(|(port, protocol)| (ServiceKey::host(*port, *protocol), service.clone()));
        let services: BTreeMap<_, _> = services.map(|(key, service)| (key, service.into())).collect();
        let snapshot = Snapshot { services, warnings: Vec::new() };
        self.handle(Event::Source(Report::Snapshot { source: SourceId::File, snapshot, at: self.now }));
    }

    fn handle(&mut self, event: Event) {
        self.agent.handle(event, self.now);
    }

    /// Lets seconds pass, with this report for each sweep. Returns the seconds at which listeners were looked for.
    fn ticks(&mut self, seconds: u32, report: &SweepReport) -> Vec<u32> {
        let mut at = Vec::new();
        for second in 1..=seconds {
            self.now += Duration::from_secs(1);
            self.handle(Event::Tick);
            if self.looked(report) {
                at.push(second);
            }
        }
        at
    }

    /// Ends all sweeps with this report. Returns whether one of them looked for listeners.
    fn looked(&mut self, report: &SweepReport) -> bool {
        let mut looked = false;
        while let Ok(job) = self.jobs.try_recv() {
            looked |= job.listeners.is_some();
            let listening = report.listening.clone().filter(|_| job.listeners.is_some());
            self.handle(Event::SweepDone(Box::new(SweepReport { listening, ..report.clone() })));
        }
        looked
    }

    /// Returns what is known of listeners on the port of a service.
    fn listener_seq(&mut self, port: u16, protocol: u8) -> &mut ListenerSeq {
        let mut found = self.agent.tables().frontends().iter();
        let (_, id) = found.find(|(it, _)| (it.port.get(), it.protocol) == (port, protocol)).unwrap();
        let id = *id;
        self.agent.plane_mut().listener_seqs.get_mut(&id).unwrap()
    }

    fn may_have_listener(&mut self, port: u16, protocol: u8) -> bool {
        let ListenerSeq { bind_seq, no_listener_seq } = self.listener_seq(port, protocol);
        bind_seq != no_listener_seq
    }

    /// A process binds the port, and the hooks report it.
    fn binds(&mut self, port: u16) {
        self.listener_seq(port, PROTOCOL_TCP).bind_seq += 1;
        let event = HookEvent {
            kind: EventKind::BOUND,
            destination_port: Port::new(port),
            protocol: PROTOCOL_TCP,
            ..HookEvent::EMPTY
        };
        self.handle(Event::HookEvents(vec![event]));
    }
}

fn listening(on: &[(u8, u16)]) -> SweepReport {
    let ports = on.iter().map(|(protocol, port)| (*protocol, Port::new(*port))).collect();
    SweepReport { listening: Some(Listening { ports, ..Listening::default() }), ..SweepReport::default() }
}

#[test]
fn ports_without_listener_are_known_soon_after_a_publish() {
    with_faults_and_without(|faults| {
        let mut stage = Stage::start(faults, Some(ListenerScope::Host), &[(WEB, Protocol::Tcp), (WEB, Protocol::Udp)]);
        assert!(stage.may_have_listener(WEB, PROTOCOL_TCP) && stage.may_have_listener(WEB, PROTOCOL_UDP));
        assert!(stage.looked(&listening(&[(PROTOCOL_UDP, WEB)])), "at once");
        assert!(!stage.may_have_listener(WEB, PROTOCOL_TCP) && stage.may_have_listener(WEB, PROTOCOL_UDP));
        stage.answer(&[(WEB, Protocol::Tcp), (1235, Protocol::Tcp)], [10, 0, 0, 1], 31_000);
        assert!(!stage.looked(&listening(&[])), "the last check was just now");
        assert_eq!(stage.ticks(22, &listening(&[])), [1, 11, 21]);
        assert!(!stage.may_have_listener(1235, PROTOCOL_TCP));
    });
}

#[test]
fn bind_counts_at_once_until_a_check_finds_no_listener() {
    with_faults_and_without(|faults| {
        let mut stage = Stage::start(faults, Some(ListenerScope::Host), &[(WEB, Protocol::Tcp)]);
        assert!(stage.looked(&listening(&[])));
        assert!(stage.ticks(4, &listening(&[])).is_empty());
        stage.binds(WEB);
        assert!(stage.may_have_listener(WEB, PROTOCOL_TCP));
        assert_eq!(stage.ticks(3, &listening(&[(PROTOCOL_TCP, WEB)])), [1]);
        assert!(stage.may_have_listener(WEB, PROTOCOL_TCP));
        assert_eq!(stage.ticks(10, &listening(&[])), [8]);
        assert!(!stage.may_have_listener(WEB, PROTOCOL_TCP));
    });
}

#[test]
fn bind_during_a_sweep_counts() {
    with_faults_and_without(|faults| {
        let mut stage = Stage::start(faults, Some(ListenerScope::Host), &[(WEB, Protocol::Tcp)]);
        stage.listener_seq(WEB, PROTOCOL_TCP).bind_seq += 1;
        assert!(stage.looked(&listening(&[])));
        assert_eq!(*stage.listener_seq(WEB, PROTOCOL_TCP), ListenerSeq { bind_seq: 2, no_listener_seq: 1 });
    });
}

#[test]
fn incomplete_sweep_is_repeated_and_changes_nothing() {
    with_faults_and_without(|faults| {
        let mut stage = Stage::start(faults, Some(ListenerScope::Host), &[(WEB, Protocol::Tcp)]);
        assert!(stage.looked(&SweepReport::default()));
        assert_eq!(stage.ticks(3, &SweepReport::default()), [1, 2, 3], "a process ended during the sweep");
        let limited =
            SweepReport { limitation: Some("run the container with --pid=host".into()), ..SweepReport::default() };
        assert_eq!(stage.ticks(21, &limited), [1, 11, 21]);
        assert!(stage.may_have_listener(WEB, PROTOCOL_TCP));
    });
}

#[test]
fn service_with_a_replica_on_its_own_port_is_not_checked() {
    with_faults_and_without(|faults| {
        let mut stage = Stage::start(faults, Some(ListenerScope::Host), &[(WEB, Protocol::Tcp)]);
        stage.answer(&[(WEB, Protocol::Tcp)], [192, 0, 2, 1], WEB);
        // The request from before that.
        stage.looked(&SweepReport::default());
        assert!(stage.ticks(30, &listening(&[])).is_empty());
        assert!(stage.may_have_listener(WEB, PROTOCOL_TCP));
    });
}

#[test]
fn without_a_listener_scope_no_check_is_made() {
    with_faults_and_without(|faults| {
        let mut stage = Stage::start(faults, None, &[(WEB, Protocol::Tcp)]);
        stage.binds(WEB);
        assert!(!stage.looked(&listening(&[])));
        assert!(stage.ticks(30, &listening(&[])).is_empty());
    });
}

#[test]
fn listener_of_the_host_is_published_while_its_service_exists() {
    with_faults_and_without(|faults| {
        let mut stage = Stage::start(faults, Some(ListenerScope::Host), &[(WEB, Protocol::Udp)]);
        let key = |port| ListenerKey::new(Address::from_v4_word(0), Port::new(port), PROTOCOL_UDP);
        let of_host = [WEB, WEB + 1].map(|port| (key(port), ListenerFlags::ON_LOOPBACK)).into();
        let listening = Listening { of_host, ..Listening::default() };
        let report = SweepReport { listening: Some(listening), ..SweepReport::default() };
        stage.ticks(10, &report);
        let published = |stage: &mut Stage| stage.agent.plane_mut().listeners.keys().copied().collect::<Vec<_>>();
        assert_eq!(published(&mut stage), [key(WEB)]);
        // Published with the service, before the next check.
        stage.answer(&[(WEB, Protocol::Udp), (WEB + 1, Protocol::Udp)], [10, 0, 0, 1], 31_000);
        assert_eq!(published(&mut stage), [key(WEB), key(WEB + 1)]);
        stage.answer(&[(WEB + 1, Protocol::Udp)], [10, 0, 0, 1], 31_000);
        stage.ticks(12, &report);
        assert_eq!(published(&mut stage), [key(WEB + 1)]);
        stage.ticks(12, &SweepReport { listening: Some(Listening::default()), ..SweepReport::default() });
        assert_eq!(published(&mut stage), []);
    });
}
