//! The status of a host on one screen: problems come first, each with its remedy.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use proxymatic_common::{BackendState, Reason};
use serde::Serialize;

use super::{AgentStatus, SelfTestStatus, ServiceRow, view};
use crate::{
    dataplane::{
        Error,
        kernel::{HOOKS, HookRow, Maps, Pins, age, hook_rows},
    },
    model::Warning,
    plan::{BackendEntry, MapState},
};

/// The output of `status`.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The problems, each with its remedy; empty if all is well.
    pub problems: Vec<String>,
    /// The status of the running agent; `None` if no agent answers.
    pub agent: Option<AgentStatus>,
    /// The attached hooks.
    pub hooks: Vec<String>,
    /// The number of published services.
    pub services: usize,
    /// The number of their backends, by state.
    pub backends: BTreeMap<&'static str, usize>,
    /// The fill levels of the maps.
    pub maps: Vec<Fill>,
    /// The count of each verdict.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// What was asked for but not done, and why.
    pub warnings: Vec<Warning>,
    /// The backends that are ejected.
    pub ejected: Vec<Ejection>,
    /// The backends that the operator drains.
    pub drained: Vec<SocketAddr>,
    /// The version of this command. The agent's version is in `agent`.
    pub version: &'static str,
    /// The map ABI version of the pins.
    pub abi: u32,
}

/// An ejected backend.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ejection {
    /// The name of its service.
    pub service: String,
    /// The backend's address and port.
    pub backend: SocketAddr,
    /// The number of ejections in a row.
    pub times: u64,
    /// The time since the first of these ejections, in seconds; `None` if no agent reports it.
    pub out_s: Option<f64>,
}

/// The fill level of a map.
#[derive(Clone, Debug, Serialize)]
pub struct Fill {
    /// The map's name.
    pub map: &'static str,
    /// Entries in use.
    pub used: usize,
    /// The number of entries that the map has.
    pub entries: u32,
}

/// Reads the pinned maps and combines them with the agent's status.
///
/// # Errors
/// Nothing is pinned, or the pins cannot be read.
pub fn status(pins: &Pins, maps: &Maps, agent: Option<AgentStatus>) -> Result<Status, Error> {
    Ok(collect(pins, maps, agent)?.status)
}

/// Everything that can be shown, at one time.
#[derive(Clone, Debug)]
pub struct Overview {
    /// The published services, by port.
    pub services: Vec<ServiceRow>,
    /// The attached hooks.
    pub hooks: Vec<HookRow>,
    /// The output of `status`.
    pub status: Status,
    /// The time since the agent's last loop iteration.
    pub heartbeat: Duration,
    /// The time since a complete answer of the sources was applied; `None` for never.
    pub synced: Option<Duration>,
    /// The time that reading took.
    pub took: Duration,
}

/// Reads the pinned maps once, for everything.
///
/// # Errors
/// Nothing is pinned, or the pins cannot be read.
pub fn collect(pins: &Pins, maps: &Maps, agent: Option<AgentStatus>) -> Result<Overview, Error> {
    let began = Instant::now();
    let tables = maps.tables()?;
    let rows = view::rows(&tables, Some(maps));
    let hook_rows = hook_rows(pins)?;
    let hooks: Vec<_> = hook_rows.iter().map(|row| row.name().into_owned()).collect();
    let mut backends = BTreeMap::new();
    for backend in rows.iter().flat_map(|row| &row.backends) {
        *backends.entry(backend.state).or_default() += 1;
    }
    let mut problems = Vec::new();
    hook_problems(pins, &hook_rows, &mut problems);
    agent_problems(agent.as_ref(), &mut problems);
    rows.iter().for_each(|row| problems.extend(service_problem(row)));
    let capacity = maps.capacity();
    let fill = |map, used, entries| Fill { map, used, entries };
    let fills = vec![
        fill("SERVICES", tables.services().len(), capacity.services),
        fill("BACKENDS", tables.backends().len(), capacity.backends),
        fill("SLOTS", tables.slots_taken() as usize, capacity.slots),
        fill("ADDRESSES", tables.addresses().len(), capacity.addresses),
        fill("SOURCE_RANGES", tables.services().values().map(|entry| entry.allow.len()).sum(), capacity.allows),
        fill(
            "SOURCE_CGROUPS",
            tables.services().values().map(|entry| entry.allow_cgroups.len()).sum(),
            capacity.allowed_cgroups,
        ),
        fill("EXCLUDED", tables.excluded().len(), capacity.excluded),
    ];
    problems.extend(fills.iter().filter_map(Fill::problem));
    let ejected = ejections(maps, &tables, agent.as_ref());
    let drained = maps.drained()?.into_iter().filter_map(|(id, generation)| {
        let entry = tables.backends().get(&id)?;
        (entry.backend.generation == generation && entry.backend.state != BackendState::GONE).then(|| socket(entry))
    });
    let drained = drained.collect();
    let status = Status {
        problems,
        hooks,
        services: rows.len(),
        backends,
        maps: fills,
        verdicts: Reason::ALL.iter().map(|reason| (reason.name(), maps.count(*reason))).collect(),
        warnings: agent.as_ref().map(|agent| agent.warnings.clone()).unwrap_or_default(),
        agent,
        ejected,
        drained,
        version: env!("CARGO_PKG_VERSION"),
        abi: maps.config().abi,
    };
    let config = maps.config();
    Ok(Overview {
        services: rows,
        hooks: hook_rows,
        status,
        heartbeat: age(config.heartbeat),
        synced: (config.synced != 0).then(|| age(config.synced)),
        took: began.elapsed(),
    })
}

fn hook_problems(pins: &Pins, attached: &[HookRow], problems: &mut Vec<String>) {
    if let Some(version) = pins.served_by() {
        return problems.push(format!(
            "map ABI version {version} still serves: version {} takes over once every source has answered the agent",
            pins.version()
        ));
    }
    for hook in HOOKS.iter().filter(|hook| attached.iter().all(|row| row.hook != **hook)) {
        problems.push(format!("{hook} is not attached: start the agent"));
    }
    for row in attached.iter().filter(|row| row.effective == Some(false)) {
        let gone = if row.interface.is_some() { "interface" } else { "cgroup" };
        problems.push(format!(
            "{} is pinned but does not run: its {gone} was removed, or another program detached it; restart the agent",
            row.name()
        ));
    }
}

fn socket(entry: &BackendEntry) -> SocketAddr {
    SocketAddr::new(entry.backend.address.into(), entry.backend.port.get())
}

fn ejections(maps: &Maps, tables: &MapState, agent: Option<&AgentStatus>) -> Vec<Ejection> {
    let out = |backend, service: &str| {
        let known = agent?.ejected.iter().find(|it| it.backend == backend && it.service == service);
        known.map(|it| it.out_s)
    };
    let ejected = tables.backends().iter().filter(|(id, _)| maps.ejected(**id));
    let row = |(id, entry): (&u32, &BackendEntry)| {
        let service = tables.services().get(&entry.backend.service).map_or("", |service| service.name.as_str());
        Ejection {
            service: service.to_owned(),
            backend: socket(entry),
            times: maps.load(*id).map_or(0, |load| load.consecutive_failures.get()),
            out_s: out(socket(entry), service),
        }
    };
    ejected.map(row).collect()
}

/// Returns the problem of a service; `None` if it has none.
fn service_problem(row: &ServiceRow) -> Option<String> {
    let all = |state| row.backends.iter().all(|backend| backend.state == state);
    let name = format!("{} {}/{}", row.name, row.port, row.protocol);
    if all("warming") {
        return Some(format!("{name} has no backend that takes traffic: check its state in {}", row.source));
    }
    all("ejected").then(|| {
        format!(
            "{name}: every backend is ejected but still gets connections, because there is no other; check its tasks"
        )
    })
}

impl Fill {
    /// Returns the remedy for a map that is nearly full; `None` if it has room.
    fn problem(&self) -> Option<String> {
        let percent = self.used * 100 / (self.entries as usize).max(1);
        let remedy = match self.map {
            "SERVICES" => "start the agent with a larger --max-services after `proxymatic detach`",
            "BACKENDS" => "start the agent with a larger --max-backends after `proxymatic detach`",
            "SLOTS" => "start the agent with a larger --max-slots after `proxymatic detach`",
            "ADDRESSES" => "use fewer virtual addresses",
            "EXCLUDED" => "exclude parent cgroups, which include all cgroups below",
            _ => "make allow lists shorter",
        };
        (percent >= 90).then(|| format!("{} is {percent} % full: {remedy}", self.map))
    }
}

fn agent_problems(agent: Option<&AgentStatus>, problems: &mut Vec<String>) {
    let Some(agent) = agent else {
        problems.push("no agent answers: hooks serve the last published state; start an agent (proxymatic run)".into());
        return;
    };
    for source in &agent.sources {
        if let Some(trouble) = &source.trouble {
            problems.push(format!("{}: {}", source.source, trouble.reason));
        }
        if let Some(restored) = &source.restored {
            problems.push(format!(
                "{} has not answered since the agent started: its services come from {}, {}",
                source.source,
                restored.path,
                restored.age()
            ));
        } else if source.answered_s.is_none() && agent.state == "OK" {
            problems.push(format!(
                "{} has not answered since the agent started: its services stay as they were",
                source.source
            ));
        }
    }
    if let Some(refused) = &agent.refused {
        problems.push(format!("the kernel refused a write: {refused}"));
    }
    self_test_problems(&agent.self_test, problems);
    if agent.state == "INITIALIZING" {
        problems.push("the agent is waiting for the first complete answer of its sources".into());
    }
}

/// The number of self-tests in a row that may be missing.
const MISSING: f64 = 3.0;

fn self_test_problems(test: &SelfTestStatus, problems: &mut Vec<String>) {
    let look = "compare `proxymatic hook show` with `bpftool cgroup tree`, and restart the agent";
    match (&test.error, test.succeeded_s) {
        (Some(error), _) => problems.push(format!("the self-test fails: {error}; {look}")),
        (None, Some(age)) if test.every_s > 0 && age > MISSING * test.every_s as f64 + MISSING => {
            problems.push(format!("the last successful self-test was {age:.0} s ago; {look}"));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surface::{
        BackendRow, Latencies, ProbeCounts, RestoredFrom, RoundTrips, SelfTestStatus, ServiceCounts, SourceStatus,
    };

    fn row(states: &[&'static str]) -> ServiceRow {
        let backend = |state: &&'static str| BackendRow {
            address: [10, 0, 0, 1].into(),
            port: 80,
            weight: 500,
            maxconn: 0,
            state,
            active: 0,
            total: 0,
            failed: 0,
            task: String::new(),
            reason: None,
            established: 0,
            rtt_us: 0,
            rtts: RoundTrips::default(),
        };
        ServiceRow {
            name: "/web".into(),
            protocol: "tcp",
            address: None,
            port: 1234,
            source: "marathon",
            policy: "leastconn",
            backends: states.iter().map(backend).collect(),
            counts: ServiceCounts::default(),
        }
    }

    #[test]
    fn service_without_an_eligible_backend_is_a_problem() {
        let no_backend = "/web 1234/tcp has no backend that takes traffic: check its state in marathon";
        assert_eq!(service_problem(&row(&[])).as_deref(), Some(no_backend));
        assert_eq!(service_problem(&row(&["warming", "warming"])).as_deref(), Some(no_backend));
        assert!(service_problem(&row(&["ejected"])).unwrap().contains("every backend is ejected"));
        for well in [["active", "ejected"], ["draining", "warming"], ["full", "full"]] {
            assert_eq!(service_problem(&row(&well)), None, "{well:?}");
        }
    }

    #[test]
    fn map_is_a_problem_before_it_is_full() {
        let fill = |used| Fill { map: "SLOTS", used, entries: 1000 }.problem();
        assert_eq!(fill(899), None);
        assert!(fill(900).unwrap().starts_with("SLOTS is 90 % full: start the agent with a larger --max-slots"));
    }

    fn problems(test: &SelfTestStatus) -> Vec<String> {
        let mut problems = Vec::new();
        self_test_problems(test, &mut problems);
        problems
    }

    #[test]
    fn failed_or_old_self_test_is_a_problem_but_not_a_missing_one() {
        let well = SelfTestStatus { every_s: 10, succeeded_s: Some(12.0), ..SelfTestStatus::default() };
        assert_eq!(problems(&well), Vec::<String>::new());
        assert_eq!(problems(&SelfTestStatus::default()), Vec::<String>::new());
        let old = problems(&SelfTestStatus { succeeded_s: Some(61.0), ..well.clone() });
        assert!(old[0].starts_with("the last successful self-test was 61 s ago"), "{old:?}");
        let failed = problems(&SelfTestStatus { error: Some("lost".into()), ..well });
        assert!(failed[0].starts_with("the self-test fails: lost; "), "{failed:?}");
    }

    #[test]
    fn unanswered_source_is_a_problem_with_its_fallback() {
        let restored = RestoredFrom { path: "/var/lib/proxymatic/state.json".into(), age_s: Some(180.0) };
        let source = |restored| SourceStatus {
            source: "marathon".into(),
            answered_s: None,
            trouble: None,
            restored,
            failures: 0,
        };
        let problems = |state: &str, restored| {
            let agent = AgentStatus {
                state: state.into(),
                pid: 1,
                version: String::new(),
                sources: vec![source(restored)],
                warnings: Vec::new(),
                refused: None,
                ejected: Vec::new(),
                awaited: Vec::new(),
                awaited_count: 0,
                first_probes: ProbeCounts::default(),
                self_test: SelfTestStatus::default(),
                remote_connections: None,
                at: None,
                published: Latencies::default(),
            };
            let mut problems = Vec::new();
            agent_problems(Some(&agent), &mut problems);
            problems
        };
        let start = "marathon has not answered since the agent started: its services ";
        assert_eq!(problems("OK", None), [format!("{start}stay as they were")]);
        for state in ["OK", "INITIALIZING"] {
            let from = "come from /var/lib/proxymatic/state.json, of 3 min ago";
            assert_eq!(problems(state, Some(restored.clone()))[0], format!("{start}{from}"));
        }
    }
}
