//! What the agent does about new backends without a check, on a data plane in memory.

#![expect(clippy::unwrap_used, reason = "a panic in a helper of a test is the report too")]

mod scenario;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use proxymatic_common::BackendState;
use proxymatic_user::{
    agent::{Agent, Event, GlobalSettings, WorkerHandles},
    backend_probe::{Order, Outcome, Probed},
    dataplane::{Faults, Memory},
    model::{Backend, Protocol, Service, ServiceKey, Snapshot, Start, State, Weight},
    plan::Capacity,
    source::{Report, SourceId},
};
use tokio::sync::mpsc;

use self::scenario::{Driven, with_faults_and_without};

const NEW_FOR: Duration = Duration::from_secs(5);

/// An agent with one service, and the receiver of its probes.
struct Stage {
    agent: Driven,
    probes: mpsc::UnboundedReceiver<Order>,
    now: Instant,
}

impl Stage {
    fn start(faults: Faults, first_answer: Duration) -> Self {
        let (to_probes, probes) = mpsc::unbounded_channel();
        let helpers = WorkerHandles { probes: Some(to_probes), ..WorkerHandles::default() };
        let agent = Agent::adopt(Memory::new(Capacity::default(), faults), &[SourceId::Marathon]).unwrap();
        let settings = GlobalSettings { first_answer, ..GlobalSettings::default() };
        let agent = Driven::new(agent.with_workers(helpers).with_settings(settings));
        Self { agent, probes, now: Instant::now() + NEW_FOR }
    }

    /// Marathon answers with a task on each of the hosts up to this one. The last one has started just now.
    fn answer(&mut self, hosts: u8) {
        self.tasks(&(1..=hosts).collect::<Vec<_>>(), hosts - 1);
    }

    /// Marathon answers with a task on each of these hosts, all without a check. The tasks up to a host are old.
    fn tasks(&mut self, hosts: &[u8], old: u8) {
        let backend = |host: u8| Backend {
            task: format!("task-{host}"),
            address: IpAddr::from([10, 0, 0, host]),
            port: 31_000,
            weight: Weight::default(),
            maxconn: 0,
            state: State::Active,
        };
        let start = |host: u8| if host > old { self.now } else { self.now - NEW_FOR };
        let service = Service {
            name: "/web".into(),
            backends: hosts.iter().copied().map(backend).collect(),
            unchecked: hosts.iter().map(|host| (format!("task-{host}"), Start::At(start(*host)))).collect(),
            ..Service::default()
        };
        let services = BTreeMap::from([(ServiceKey::host(1234, Protocol::Tcp), service.into())]);
        let snapshot = Snapshot { services, warnings: Vec::new() };
        self.handle(Event::Source(Report::Snapshot { source: SourceId::Marathon, snapshot, at: self.now }));
    }

    fn handle(&mut self, event: Event) {
        self.agent.handle(event, self.now);
    }

    /// Lets the agent do what is due next.
    fn due(&mut self) {
        if let Some(at) = self.agent.wake_at() {
            self.now = self.now.max(at);
            self.handle(Event::Wake);
        }
    }

    /// Lets the agent do what is due until it has ordered a probe. Returns the host and the number of the probe.
    fn any_probe(&mut self) -> (u8, u64) {
        loop {
            self.due();
            if let Ok(order) = self.probes.try_recv() {
                let Order::Once { probe, to: SocketAddr::V4(to) } = order else { panic!("{order:?}") };
                return (to.ip().octets()[3], probe);
            }
        }
    }

    fn probe_of(&mut self, host: u8) -> u64 {
        let (probed, probe) = self.any_probe();
        assert_eq!(probed, host);
        probe
    }

    /// Returns the state of each task in the maps, by its number.
    fn states(&self) -> BTreeMap<String, BackendState> {
        let backends = self.agent.tables().backends().values();
        let live = backends.filter(|entry| entry.backend.state != BackendState::GONE);
        live.map(|entry| (entry.task.clone(), entry.backend.state)).collect()
    }
}

fn states<const N: usize>(states: [(u8, BackendState); N]) -> BTreeMap<String, BackendState> {
    states.map(|(host, state)| (format!("task-{host}"), state)).into()
}

#[test]
fn new_backend_is_published_as_warming_until_it_answers() {
    with_faults_and_without(|faults| {
        let mut stage = Stage::start(faults, NEW_FOR);
        stage.answer(1);
        assert_eq!(stage.states(), states([(1, BackendState::WARMING)]));
        let probe = stage.probe_of(1);
        stage.handle(Event::Probed(Probed { probe, outcome: Outcome::Answered }));
        assert_eq!(stage.states(), states([(1, BackendState::ACTIVE)]));

        stage.now += NEW_FOR;
        stage.answer(2);
        let awaited = states([(1, BackendState::ACTIVE), (2, BackendState::WARMING)]);
        assert_eq!(stage.states(), awaited);
        let probe = stage.probe_of(2);
        stage.handle(Event::Probed(Probed { probe, outcome: Outcome::Refused }));
        assert_eq!(stage.states(), awaited);
        let status = stage.agent.status(stage.now);
        assert_eq!((status.awaited.len(), status.awaited_count), (1, 1));
        assert!(status.awaited[0].reason.contains("refused the first probe"), "{status:?}");
        let probe = stage.probe_of(2);
        stage.handle(Event::Probed(Probed { probe, outcome: Outcome::Answered }));
        assert_eq!(stage.states(), states([(1, BackendState::ACTIVE), (2, BackendState::ACTIVE)]));
        let status = stage.agent.status(stage.now);
        assert_eq!((status.awaited.len(), status.first_probes.answered, status.first_probes.refused), (0, 2, 1));
    });
}

#[test]
fn new_backend_is_published_as_active_when_it_is_no_longer_new() {
    with_faults_and_without(|faults| {
        let mut stage = Stage::start(faults, NEW_FOR);
        stage.answer(2);
        assert_eq!(stage.states(), states([(1, BackendState::ACTIVE), (2, BackendState::WARMING)]));
        stage.probe_of(2);
        stage.due();
        assert_eq!(stage.states(), states([(1, BackendState::ACTIVE), (2, BackendState::ACTIVE)]));
        assert_eq!(stage.agent.wake_at(), None);
    });
}

#[test]
fn new_backend_is_published_as_active_at_once_if_probes_are_off() {
    let mut stage = Stage::start(scenario::NO_FAULTS, Duration::ZERO);
    stage.answer(2);
    assert_eq!(stage.states(), states([(1, BackendState::ACTIVE), (2, BackendState::ACTIVE)]));
    assert_eq!((stage.agent.wake_at(), stage.probes.try_recv().is_err()), (None, true));
}

#[test]
fn service_that_has_served_uses_new_backends_if_it_has_no_other() {
    with_faults_and_without(|faults| {
        let mut stage = Stage::start(faults, NEW_FOR);
        stage.answer(1);
        let probe = stage.probe_of(1);
        stage.handle(Event::Probed(Probed { probe, outcome: Outcome::Answered }));
        // All tasks are replaced at once.
        stage.now += NEW_FOR;
        stage.tasks(&[2, 3], 0);
        assert_eq!(stage.states(), states([(2, BackendState::ACTIVE), (3, BackendState::ACTIVE)]));
        assert_eq!(stage.agent.status(stage.now).awaited, []);
        // One has answered, and the other one can wait.
        let (first, probe) = stage.any_probe();
        stage.handle(Event::Probed(Probed { probe, outcome: Outcome::Answered }));
        let other = if first == 2 { 3 } else { 2 };
        assert_eq!(stage.states(), states([(first, BackendState::ACTIVE), (other, BackendState::WARMING)]));
        let probe = stage.probe_of(other);
        stage.handle(Event::Probed(Probed { probe, outcome: Outcome::Answered }));
        stage.due();
        assert_eq!(stage.states(), states([(2, BackendState::ACTIVE), (3, BackendState::ACTIVE)]));
    });
}
