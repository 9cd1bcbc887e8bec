//! Whose sockets are looked for when backends go, on a data plane in memory.

#![expect(clippy::unwrap_used, reason = "a panic in a helper of a test is the report too")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use proxymatic_user::{
    agent::{Agent, Event, Helpers},
    dataplane::{Dataplane as _, Faults, Memory},
    model::{Backend, Protocol, Service, ServiceKey, Snapshot, State, Weight},
    plan::Capacity,
    sockets::{Job, Report as Swept},
    source::{Report, SourceId},
};
use tokio::sync::mpsc;

/// An agent, with the other end of what it orders.
struct Stage {
    agent: Agent<Memory>,
    jobs: mpsc::Receiver<Job>,
    now: Instant,
}

impl Stage {
    fn start(plane: Memory, now: Instant) -> Self {
        let (sweeps, jobs) = mpsc::channel(1);
        let helpers = Helpers { sweeps: Some(sweeps), ..Helpers::default() };
        Self { agent: Agent::adopt(plane, &[SourceId::File]).unwrap().with(helpers), jobs, now }
    }

    /// There is one service of that protocol, with a backend on each of these ports.
    fn says(&mut self, protocol: Protocol, ports: &[u16]) {
        let backend = |port: &u16| Backend {
            task: format!("task-{port}"),
            address: IpAddr::from([10, 0, 0, 1]),
            port: *port,
            weight: Weight::default(),
            maxconn: 0,
            state: State::Active,
        };
        let service =
            Service { name: "/web".into(), backends: ports.iter().map(backend).collect(), ..Service::default() };
        let services = BTreeMap::from([(ServiceKey::host(1234, protocol), service.into())]);
        let snapshot = Snapshot { services, complaints: Vec::new() };
        self.agent.handle(Event::Source(Report::Snapshot { source: SourceId::File, snapshot, at: self.now }), self.now);
    }

    /// Lets a second pass. Gives the ports whose sockets are to be ended, by all that is ordered until nothing is.
    fn second(&mut self) -> Vec<u16> {
        self.now += Duration::from_secs(1);
        self.agent.handle(Event::Tick, self.now);
        let mut ended = BTreeSet::new();
        while let Ok(job) = self.jobs.try_recv() {
            ended.extend(job.gone.values().map(|gone| gone.port.get()));
            self.agent.handle(Event::Swept(Box::new(Swept::default())), self.now);
        }
        ended.into_iter().collect()
    }

    /// The agent dies, and another comes upon the same maps.
    fn next(self) -> Self {
        let mut plane = Memory::new(Capacity::default(), Faults { one_in: 0, seed: 0 });
        self.agent.plane().applied.iter().for_each(|op| plane.apply(op).unwrap());
        Self::start(plane, self.now)
    }
}

fn stage(protocol: Protocol) -> Stage {
    let plane = Memory::new(Capacity::default(), Faults { one_in: 0, seed: 0 });
    let mut stage = Stage::start(plane, Instant::now());
    stage.says(protocol, &[8001, 8002]);
    assert!(stage.second().is_empty());
    stage
}

#[test]
fn the_udp_sockets_of_a_backend_that_goes_are_looked_for_and_tcp_connections_are_left() {
    for (protocol, ended) in [(Protocol::Udp, &[8001_u16][..]), (Protocol::Tcp, &[])] {
        let mut stage = stage(protocol);
        stage.says(protocol, &[8002]);
        assert_eq!(stage.second(), ended, "{protocol:?}");
        assert!(stage.second().is_empty(), "{protocol:?}: once more after a second, and then never again");
    }
}

/// Found by the soak: an agent that was killed after it had taken backends out left their sockets to nobody.
#[test]
fn an_agent_looks_for_the_sockets_of_backends_that_the_one_before_it_took_out_and_died() {
    let mut stage = stage(Protocol::Udp);
    stage.says(Protocol::Udp, &[8002]);
    // It has ordered to look, and dies before anybody does.
    let mut next = stage.next();
    assert_eq!(next.second(), [8001_u16]);
    assert_eq!(next.second(), [8001_u16], "a connection may have been made just then");
    next.says(Protocol::Udp, &[8002]);
    assert!(next.second().is_empty());
}
