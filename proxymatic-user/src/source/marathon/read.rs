//! From the bytes of Marathon's answer to the model. Pure and total: whatever the bytes are, there is a result.
//!
//! Three steps, because a task's ports belong to the version it was started from and its host may be a name:
//! [`parse`] the answer, look up what it [`needs`], then [`read`] it with what was found.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU32,
    sync::Arc,
};

use super::{
    definition::Definition,
    merge::{Claim, Merge, Replica},
    ports::{self, Endpoint},
    wire::{App, Listing, Loose, Task},
};
use crate::model::{Complaint, Condition, Health, Protocol, ServiceKey, Snapshot, Vitals};

/// Which definition of which app: its id and a version.
pub type AppVersion = (String, String);

/// What must be looked up before an answer can be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Earlier definitions that tasks still run.
    pub definitions: BTreeSet<AppVersion>,
    /// Hosts that are names.
    pub hosts: BTreeSet<String>,
}

/// What was looked up; an error is a sentence that says why there is nothing.
#[derive(Debug, Default)]
pub struct Found {
    /// Earlier definitions.
    pub definitions: BTreeMap<AppVersion, Result<Arc<App>, String>>,
    /// The addresses of hosts.
    pub hosts: BTreeMap<String, Result<IpAddr, String>>,
}

/// Parses the answer to `GET /v2/apps?embed=apps.tasks&embed=apps.readiness`.
pub fn parse(body: &[u8]) -> Result<Listing, serde_json::Error> {
    serde_json::from_slice(body)
}

/// What must be looked up before [`read`].
pub fn needs(listing: &Listing) -> Needs {
    let mut needs = Needs::default();
    for app in good(&listing.apps) {
        for task in good(&app.tasks).filter(|task| condition(task) != Some(Condition::Ended)) {
            if !is_current(app, task) {
                needs.definitions.insert((app.id.clone(), task.version.clone()));
            }
            if !task.ports.is_empty() && !task.host.is_empty() && address_of(&task.host).is_none() {
                needs.hosts.insert(task.host.clone());
            }
        }
    }
    needs
}

/// Reads an answer. `group_size` is the number of hosts that share a `maxconn`.
///
/// Every app's service ports become services, also where no task serves them: to dial such a port is to be refused.
pub fn read(listing: &Listing, found: &Found, group_size: NonZeroU32) -> Snapshot {
    let mut reading = Reading { found, group_size, merge: Merge::default(), complaints: BTreeSet::new() };
    for app in &listing.apps {
        match app {
            Loose::Good(app) => reading.app(app),
            Loose::Bad { id, reason } => {
                let app = id.as_deref().unwrap_or("an app without an id");
                reading.complain(app, format!("its description cannot be read, so it is left out: {reason}"));
            }
        }
    }
    let services = reading.merge.services(&mut reading.complaints);
    Snapshot { services, complaints: reading.complaints.into_iter().collect() }
}

/// The state of one [`read`].
struct Reading<'a> {
    found: &'a Found,
    group_size: NonZeroU32,
    merge: Merge<'a>,
    complaints: BTreeSet<Complaint>,
}

impl<'a> Reading<'a> {
    fn complain(&mut self, app: &str, reason: String) {
        self.complaints.insert(Complaint { app: app.to_owned(), reason });
    }

    fn app(&mut self, app: &'a App) {
        let current = self.define(app, app);
        for (index, port) in current.ports.iter().flatten().enumerate() {
            let claim = Claim { app: &app.id, index, by_label: current.labels.port(index).service_port.is_some() };
            for key in current.service_port(index).into_iter().flat_map(|number| keys(number, port.protocols)) {
                self.merge.claim(key, claim);
            }
        }
        let ready: BTreeMap<_, _> =
            app.readiness_check_results.iter().map(|result| (result.task_id.as_str(), result.ready)).collect();
        let mut earlier: BTreeMap<&str, Option<Definition<'a>>> = BTreeMap::new();
        for task in &app.tasks {
            let task = match task {
                Loose::Good(task) => task,
                Loose::Bad { id, reason } => {
                    let id = id.as_deref().unwrap_or(&app.id);
                    self.complain(id, format!("the description of a task cannot be read: {reason}"));
                    continue;
                }
            };
            let definition = if is_current(app, task) {
                &current
            } else {
                match earlier.entry(&task.version).or_insert_with(|| self.earlier(app, &task.version)) {
                    Some(definition) => &*definition,
                    None => continue,
                }
            };
            self.task(app, definition, task, ready.get(task.id.as_str()).copied());
        }
    }

    /// Reads a definition of an app, and says what is wrong with it.
    fn define(&mut self, app: &App, definition: &'a App) -> Definition<'a> {
        let definition = Definition::new(definition, self.group_size);
        for complaint in &definition.complaints {
            self.complain(&app.id, complaint.clone());
        }
        definition
    }

    /// An earlier definition of an app, where Marathon still has it.
    fn earlier(&mut self, app: &App, version: &str) -> Option<Definition<'a>> {
        let found = self.found;
        match found.definitions.get(&(app.id.clone(), version.to_owned())) {
            Some(Ok(definition)) => Some(self.define(app, definition)),
            Some(Err(reason)) => {
                let left_out = "the ports of the tasks that still run it are not known, so they are left out";
                self.complain(
                    &app.id,
                    format!("the definition of version {version} cannot be had: {reason}; {left_out}"),
                );
                None
            }
            // Whoever reads without looking up what is needed gets what is certain.
            None => None,
        }
    }

    fn task(&mut self, app: &'a App, definition: &Definition<'a>, task: &'a Task, ready: Option<bool>) {
        let condition = condition(task).unwrap_or_else(|| {
            // What this version does not know must not cut what is open, nor get anything new.
            self.complain(&task.id, format!("its state {:?} is unknown; it gets no new connections", task.state));
            Condition::Killing
        });
        let vitals = Vitals { condition, health: health(definition, task), ready: is_ready(app, task, ready) };
        let Some(ports) = definition.ports.as_deref().filter(|_| condition != Condition::Ended) else { return };
        if condition == Condition::Starting && task.ports.is_empty() && task.ip_addresses.is_empty() {
            return; // Has not been given any ports yet.
        }
        let (endpoints, wrong) = match ports::walk(ports, task) {
            Ok(walked) => walked,
            Err(reason) => return self.complain(&task.id, format!("{reason} (app {})", app.id)),
        };
        for reason in wrong {
            self.complain(&task.id, format!("{reason} (app {})", app.id));
        }
        for Endpoint { index, address, port } in endpoints {
            let Some(number) = definition.service_port(index) else { continue };
            let address = match address.map_or_else(|| self.host(task), Ok) {
                Ok(address) => address,
                Err(reason) => {
                    self.complain(&task.id, format!("{reason} (app {})", app.id));
                    continue;
                }
            };
            let labels = definition.labels.port(index);
            let claim = Claim { app: &app.id, index, by_label: labels.service_port.is_some() };
            for key in keys(number, ports[index].protocols) {
                let replica = Replica { vitals, weight: labels.weight, maxconn: labels.maxconn };
                self.merge.claim(key, claim);
                self.merge.add(key, (&task.id, address, port), replica);
            }
        }
    }

    /// The address of the host of a task.
    fn host(&self, task: &Task) -> Result<IpAddr, String> {
        if task.host.is_empty() {
            return Err("its host is not said, so where it is served is not known".into());
        }
        if let Some(address) = address_of(&task.host) {
            return Ok(address);
        }
        let host = &task.host;
        match self.found.hosts.get(host) {
            Some(Ok(address)) => Ok(*address),
            Some(Err(reason)) => Err(format!("its host {host:?} has no known address: {reason}")),
            None => Err(format!("its host {host:?} was not looked up")),
        }
    }
}

fn keys(port: u16, protocols: &'static [Protocol]) -> impl Iterator<Item = ServiceKey> {
    protocols.iter().map(move |protocol| ServiceKey::host(port, *protocol))
}

fn good<T>(all: &[Loose<T>]) -> impl Iterator<Item = &T> {
    all.iter().filter_map(|it| match it {
        Loose::Good(it) => Some(it),
        Loose::Bad { .. } => None,
    })
}

/// The address of a host that is one; IPv6 may stand in brackets.
fn address_of(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// Whether the app's present definition is the one the task was started from, or differs only in the number of tasks.
fn is_current(app: &App, task: &Task) -> bool {
    let (version, changed) = (task.version.as_str(), app.version_info.last_config_change_at.as_str());
    // Timestamps of one length in UTC are in the order of their letters; of others nothing is concluded.
    let only_scaled =
        version.len() == changed.len() && version.ends_with('Z') && changed.ends_with('Z') && version >= changed;
    version.is_empty() || version == app.version || only_scaled
}

/// What Mesos says of a task; `None` for a word this version does not know.
fn condition(task: &Task) -> Option<Condition> {
    Some(match task.state.as_str() {
        "TASK_RUNNING" => Condition::Running,
        "TASK_STAGING" | "TASK_STARTING" => Condition::Starting,
        "TASK_KILLING" => Condition::Killing,
        "TASK_UNREACHABLE" => Condition::Unreachable,
        "TASK_FINISHED"
        | "TASK_FAILED"
        | "TASK_KILLED"
        | "TASK_ERROR"
        | "TASK_LOST"
        | "TASK_DROPPED"
        | "TASK_GONE"
        | "TASK_GONE_BY_OPERATOR"
        | "TASK_UNKNOWN" => Condition::Ended,
        // Marathon 1.1.1 and earlier say nothing, but list only tasks that have not ended.
        "" if task.started_at.is_empty() => Condition::Starting,
        "" => Condition::Running,
        _ => return None,
    })
}

fn health(definition: &Definition<'_>, task: &Task) -> Health {
    match task.health_check_results.as_slice() {
        _ if !definition.checked => Health::Unchecked,
        [] => Health::Unknown,
        results if results.iter().all(|result| result.alive) => Health::Alive,
        _ => Health::Failing,
    }
}

/// Whether a task is ready. Only deployments wait for that, and only for tasks of the version they bring: once the
/// deployment is over, or where a task is replaced outside of one, there are no results and every task counts as ready.
fn is_ready(app: &App, task: &Task, said: Option<bool>) -> bool {
    let awaited = !app.readiness_checks.is_empty() && !app.deployments.is_empty() && task.version == app.version;
    said.unwrap_or(!awaited)
}

#[cfg(test)]
mod tests;
