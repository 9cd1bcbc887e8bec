//! Sample rows, for tests of their output.

use std::{collections::BTreeMap, time::Duration};

use proxymatic_common::Reason;

use super::{
    AgentStatus, BackendRow, Latencies, Overview, ProbeCounts, RoundTrips, SelfTestStatus, ServiceCounts, ServiceRow,
    SourceStatus, Status, status::Fill,
};
use crate::dataplane::kernel::{HOOKS, HookRow};

/// A service with one backend in each of these states.
pub(super) fn service(name: &str, port: u16, states: &[&'static str]) -> ServiceRow {
    let backend = |(nth, state): (usize, &&'static str)| BackendRow {
        address: [10, 0, (nth >> 8) as u8, nth as u8].into(),
        port: 31_000,
        weight: 500,
        maxconn: 0,
        state,
        active: 1,
        total: 7,
        failed: 2,
        task: format!("task.{nth}"),
        reason: None,
        established: 5,
        rtt_us: 250,
        rtts: RoundTrips { steps: [0, 4, 0, 0, 0, 0, 1], sum_us: 201_000 },
    };
    ServiceRow {
        name: name.into(),
        protocol: "tcp",
        address: None,
        port,
        source: "marathon",
        policy: "leastconn",
        backends: states.iter().enumerate().map(backend).collect(),
        counts: ServiceCounts { open: 1, opened: 70, refused: [3, 0, 0, 0, 0, 0, 0, 0] },
    }
}

/// A healthy agent.
pub(super) fn agent(state: &str) -> AgentStatus {
    let mut published = Latencies::default();
    published.record(Duration::from_millis(3));
    let source =
        SourceStatus { source: "marathon".into(), answered_s: Some(1.5), trouble: None, restored: None, failures: 4 };
    AgentStatus {
        state: state.into(),
        pid: 1,
        version: "0.0.0".into(),
        sources: vec![source],
        warnings: Vec::new(),
        refused: None,
        ejected: Vec::new(),
        awaited: Vec::new(),
        awaited_count: 0,
        first_probes: ProbeCounts::default(),
        self_test: SelfTestStatus::default(),
        remote_connections: Some(7),
        at: Some(std::time::Instant::now()),
        published,
    }
}

/// These services, with a healthy agent and all hooks.
pub(super) fn overview(services: Vec<ServiceRow>) -> Overview {
    let hook = |hook| HookRow {
        hook,
        interface: None,
        program: 1,
        link: Some(2),
        pin: Some(String::new()),
        effective: Some(true),
        runs: 4,
        mean_ns: Some(250.0),
    };
    let status = Status {
        problems: Vec::new(),
        agent: Some(agent("OK")),
        hooks: HOOKS.map(String::from).to_vec(),
        services: services.len(),
        backends: BTreeMap::new(),
        maps: vec![Fill { map: "SERVICES", used: services.len(), entries: 16_384 }],
        verdicts: Reason::ALL.iter().map(|reason| (reason.name(), 1)).collect(),
        warnings: Vec::new(),
        ejected: Vec::new(),
        drained: Vec::new(),
        version: "0.0.0",
        abi: 4,
    };
    Overview {
        services,
        hooks: HOOKS.map(hook).to_vec(),
        status,
        heartbeat: Duration::from_millis(500),
        synced: Some(Duration::from_secs(2)),
        took: Duration::from_millis(1),
    }
}
