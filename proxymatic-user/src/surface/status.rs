//! One screen: what is wrong comes first, in words, with the remedy.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use proxymatic_common::Reason;
use serde::Serialize;

use super::{AgentStatus, ServiceRow, view};
use crate::{
    dataplane::{
        Error,
        kernel::{HOOKS, HookRow, Maps, Pins, age, hook_rows},
    },
    model::Complaint,
};

/// What `status` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// What is wrong, each with its remedy; empty where all is well.
    pub wrong: Vec<String>,
    /// What the running agent says; absent where none answers.
    pub agent: Option<AgentStatus>,
    /// The hooks that are in place.
    pub hooks: Vec<&'static str>,
    /// How many services can be found.
    pub services: usize,
    /// How many backends they have, by state.
    pub backends: BTreeMap<&'static str, usize>,
    /// How full the maps are.
    pub maps: Vec<Fill>,
    /// How often each verdict was given.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// What was asked for and is not done, and why.
    pub complaints: Vec<Complaint>,
}

/// How full a map is.
#[derive(Clone, Debug, Serialize)]
pub struct Fill {
    /// Its name.
    pub map: &'static str,
    /// Entries in use.
    pub used: usize,
    /// Entries there are.
    pub entries: u32,
}

/// Looks at the pins, and at what the agent said.
///
/// # Errors
/// Nothing is pinned, or it cannot be read.
pub fn status(pins: &Pins, maps: &Maps, agent: Option<AgentStatus>) -> Result<Status, Error> {
    Ok(see(pins, maps, agent)?.status)
}

/// All there is to be shown, at one moment.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The services that can be found, by port.
    pub services: Vec<ServiceRow>,
    /// The hooks that are in place.
    pub hooks: Vec<HookRow>,
    /// What `status` prints.
    pub status: Status,
    /// How long ago the agent went round its loop.
    pub heartbeat: Duration,
    /// How long ago a complete answer of the sources was applied; `None` for never.
    pub synced: Option<Duration>,
    /// How long it took to look.
    pub took: Duration,
}

/// Looks at the pins once, for everything.
///
/// # Errors
/// Nothing is pinned, or it cannot be read.
pub fn see(pins: &Pins, maps: &Maps, agent: Option<AgentStatus>) -> Result<Seen, Error> {
    let began = Instant::now();
    let tables = maps.tables()?;
    let rows = view::rows(&tables, Some(maps));
    let hook_rows = hook_rows(pins)?;
    let hooks: Vec<_> = hook_rows.iter().map(|row| row.hook).collect();
    let mut backends = BTreeMap::new();
    for backend in rows.iter().flat_map(|row| &row.backends) {
        *backends.entry(backend.state).or_default() += 1;
    }
    let mut wrong = Vec::new();
    for hook in HOOKS.iter().filter(|hook| !hooks.contains(hook)) {
        wrong.push(format!("{hook} is not attached: start the agent"));
    }
    of_agent(agent.as_ref(), &mut wrong);
    for row in rows.iter().filter(|row| row.backends.iter().all(|backend| backend.state == "warming")) {
        wrong.push(format!(
            "{} {}/{} has no backend that takes traffic: look at what {} says of it",
            row.name, row.port, row.protocol, row.source
        ));
    }
    let capacity = maps.capacity();
    let fill = |map, used, entries| Fill { map, used, entries };
    let status = Status {
        wrong,
        hooks,
        services: rows.len(),
        backends,
        maps: vec![
            fill("SERVICES", tables.services().len(), capacity.services),
            fill("BACKENDS", tables.backends().len(), capacity.backends),
            fill("SLOTS", tables.slots_taken() as usize, capacity.slots),
            fill("ADDRESSES", tables.addresses().len(), capacity.addresses),
            fill("ALLOW", tables.services().values().map(|entry| entry.allow.len()).sum(), capacity.allows),
            fill(
                "ALLOW_CGROUPS",
                tables.services().values().map(|entry| entry.allow_cgroups.len()).sum(),
                capacity.allowed_cgroups,
            ),
            fill("EXCLUDED", tables.excluded().len(), capacity.excluded),
        ],
        verdicts: Reason::ALL.iter().map(|reason| (reason.name(), maps.count(*reason))).collect(),
        complaints: agent.as_ref().map(|agent| agent.complaints.clone()).unwrap_or_default(),
        agent,
    };
    let config = maps.config();
    Ok(Seen {
        services: rows,
        hooks: hook_rows,
        status,
        heartbeat: age(config.heartbeat),
        synced: (config.synced != 0).then(|| age(config.synced)),
        took: began.elapsed(),
    })
}

fn of_agent(agent: Option<&AgentStatus>, wrong: &mut Vec<String>) {
    let Some(agent) = agent else {
        wrong.push("no agent answers: traffic goes on as last published; start it (proxymatic run)".into());
        return;
    };
    for source in &agent.sources {
        if let Some(trouble) = &source.trouble {
            wrong.push(format!("{}: {}", source.source, trouble.reason));
        }
        if source.answered_s.is_none() && agent.state == "OK" {
            wrong.push(format!(
                "{} has not answered since the agent started: its services stay as they were",
                source.source
            ));
        }
    }
    if let Some(refused) = &agent.refused {
        wrong.push(format!("the kernel refused a write: {refused}"));
    }
    if agent.state == "INITIALIZING" {
        wrong.push("the agent waits for the first complete answer of its sources".into());
    }
}
