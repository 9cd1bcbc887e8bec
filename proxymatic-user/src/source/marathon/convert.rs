//! From the bytes of Marathon's answer to the model. Pure and total: whatever the bytes are, there is a result.
//!
//! Three steps, because a task's ports belong to the version it was started from and its host may be a name:
//! [`parse`] the answer, look up what it [`needs`], then [`read`] it with what was found.

mod pods;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU32,
    sync::Arc,
};

pub use self::pods::pod_version;
use super::{
    api::{App, Lenient, Listing, Pod, PodStatus, Task},
    definition::Definition,
    merge::{Asked, Member, Merge, PortClaim, asked},
    ports::{self, Endpoint, Served},
};
use crate::model::{Health, Snapshot, TaskState, TaskStatus, Warning};

/// Which definition of which app: its id and a version.
pub type AppVersion = (String, String);

/// What must be looked up before an answer can be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RequiredLookups {
    /// Earlier definitions that tasks still run.
    pub definitions: BTreeSet<AppVersion>,
    /// Earlier definitions of pods that instances still run.
    pub pods: BTreeSet<AppVersion>,
    /// Hosts that are names.
    pub hosts: BTreeSet<String>,
}

/// What was looked up; an error is a sentence that says why there is nothing.
#[derive(Debug, Default)]
pub struct Lookups {
    /// Earlier definitions.
    pub definitions: BTreeMap<AppVersion, Result<Arc<App>, String>>,
    /// Earlier definitions of pods.
    pub pods: BTreeMap<AppVersion, Result<Arc<Pod>, String>>,
    /// The addresses of hosts.
    pub hosts: BTreeMap<String, Result<IpAddr, String>>,
}

/// What the operator decides for all apps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The number of hosts that share a `maxconn`.
    pub group_size: NonZeroU32,
    /// Whether services are served whose port is that of their tasks on their own hosts.
    pub expose_host: bool,
}

impl From<NonZeroU32> for Options {
    fn from(group_size: NonZeroU32) -> Self {
        Self { group_size, expose_host: false }
    }
}

/// Parses the answer to `GET /v2/apps?embed=apps.tasks&embed=apps.readiness`.
pub fn parse(body: &[u8]) -> Result<Listing, serde_json::Error> {
    serde_json::from_slice(body)
}

/// Parses the answer to `GET /v2/pods/::status`.
pub fn parse_pods(body: &[u8]) -> Result<Vec<Lenient<PodStatus>>, serde_json::Error> {
    serde_json::from_slice(body)
}

/// What must be looked up before [`read`].
pub fn needs(listing: &Listing) -> RequiredLookups {
    let mut needs = RequiredLookups::default();
    for app in good(&listing.apps) {
        for task in good(&app.tasks).filter(|task| condition(task) != Some(TaskState::Ended)) {
            if !is_current(app, task) {
                needs.definitions.insert((app.id.clone(), task.version.clone()));
            }
            if !task.ports.is_empty() && !task.host.is_empty() && address_of(&task.host).is_none() {
                needs.hosts.insert(task.host.clone());
            }
        }
    }
    pods::needs(&listing.pods, &mut needs);
    needs
}

/// Reads an answer.
///
/// Every app's service ports become services, also where no task serves them: to dial such a port is to be refused.
pub fn read(listing: &Listing, found: &Lookups, rules: impl Into<Options>) -> Snapshot {
    let mut reading = Reading::new(found, rules.into());
    for app in &listing.apps {
        match app {
            Lenient::Good(app) => reading.app(app),
            Lenient::Bad { id, reason } => {
                let app = id.as_deref().unwrap_or("an app without an id");
                reading.warn(app, format!("its description cannot be read, so it is left out: {reason}"));
            }
        }
    }
    for pod in &listing.pods {
        match pod {
            Lenient::Good(pod) => reading.pod(pod),
            Lenient::Bad { id, reason } => {
                let pod = id.as_deref().unwrap_or("a pod without an id");
                reading.warn(pod, format!("its description cannot be read, so it is left out: {reason}"));
            }
        }
    }
    if let Some(reason) = &listing.pods_unknown {
        reading.warn("pods", reason.clone());
    }
    reading.end()
}

/// Reads one task of an app as if there were no other; `None` where it was started from an earlier definition.
pub(super) fn read_task(app: &App, task: &Task, found: &Lookups, rules: Options) -> Option<Snapshot> {
    let mut reading = Reading::new(found, rules);
    let definition = is_current(app, task).then(|| reading.define(app, app))?;
    reading.task(app, &definition, task, None);
    Some(reading.end())
}

/// The state of one [`read`].
struct Reading<'a> {
    found: &'a Lookups,
    rules: Options,
    merge: Merge<'a>,
    warnings: BTreeSet<Warning>,
}

impl<'a> Reading<'a> {
    fn new(found: &'a Lookups, rules: Options) -> Self {
        Self { found, rules, merge: Merge::default(), warnings: BTreeSet::new() }
    }

    fn end(mut self) -> Snapshot {
        let services = self.merge.services(self.rules, &mut self.warnings);
        Snapshot { services, warnings: self.warnings.into_iter().collect() }
    }

    fn warn(&mut self, app: &str, reason: String) {
        self.warnings.insert(Warning { app: app.to_owned(), reason });
    }

    fn app(&mut self, app: &'a App) {
        let current = self.define(app, app);
        for index in 0..current.ports.as_ref().map_or(0, Vec::len) {
            let labels = current.labels.port(index).service;
            for (key, owner, claim) in claims(app, &current, index) {
                self.merge.claim(key, owner, claim, &labels);
            }
        }
        let ready: BTreeMap<_, _> =
            app.readiness_check_results.iter().map(|result| (result.task_id.as_str(), result.ready)).collect();
        let mut earlier: BTreeMap<&str, Option<Definition<'a>>> = BTreeMap::new();
        for task in &app.tasks {
            let task = match task {
                Lenient::Good(task) => task,
                Lenient::Bad { id, reason } => {
                    let id = id.as_deref().unwrap_or(&app.id);
                    self.warn(id, format!("the description of a task cannot be read: {reason}"));
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
        let definition = Definition::new(definition, self.rules);
        for warning in &definition.warnings {
            self.warn(&app.id, warning.clone());
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
                self.warn(&app.id, format!("the definition of version {version} cannot be had: {reason}; {left_out}"));
                None
            }
            // Whoever reads without looking up what is needed gets what is certain.
            None => None,
        }
    }

    /// What this version does not know must not cut what is open, nor get anything new.
    fn known(&mut self, id: &str, state: &str, condition: Option<TaskState>) -> TaskState {
        condition.unwrap_or_else(|| {
            self.warn(id, format!("its state {state:?} is unknown; it gets no new connections"));
            TaskState::Killing
        })
    }

    fn task(&mut self, app: &'a App, definition: &Definition<'a>, task: &'a Task, ready: Option<bool>) {
        let condition = self.known(&task.id, &task.state, condition(task));
        let vitals = TaskStatus { condition, health: health(definition, task), ready: is_ready(app, task, ready) };
        let Some(ports) = definition.ports.as_deref().filter(|_| condition != TaskState::Ended) else { return };
        if condition == TaskState::Starting && task.ports.is_empty() && task.ip_addresses.is_empty() {
            return; // Has not been given any ports yet.
        }
        let (endpoints, wrong) = match ports::walk(ports, task) {
            Ok(walked) => walked,
            Err(reason) => return self.warn(&task.id, format!("{reason} (app {})", app.id)),
        };
        for reason in wrong {
            self.warn(&task.id, format!("{reason} (app {})", app.id));
        }
        for Endpoint { index, address, port } in endpoints {
            let asked = claims(app, definition, index);
            if asked.is_empty() {
                continue;
            }
            let address = match address.map_or_else(|| self.host(&task.host), Ok) {
                Ok(address) => address,
                Err(reason) => {
                    self.warn(&task.id, format!("{reason} (app {})", app.id));
                    continue;
                }
            };
            let labels = definition.labels.port(index);
            let replica = Member { vitals, weight: labels.weight, maxconn: labels.maxconn };
            for (key, owner, claim) in asked {
                self.merge.claim(key, owner, claim, &labels.service);
                self.merge.add(key, owner, (task.id.as_str().into(), address, port), replica);
            }
        }
    }

    /// The address of a host.
    fn host(&self, host: &str) -> Result<IpAddr, String> {
        if host.is_empty() {
            return Err("its host is not said, so where it is served is not known".into());
        }
        if let Some(address) = address_of(host) {
            return Ok(address);
        }
        match self.found.hosts.get(host) {
            Some(Ok(address)) => Ok(*address),
            Some(Err(reason)) => Err(format!("its host {host:?} has no known address: {reason}")),
            None => Err(format!("its host {host:?} was not looked up")),
        }
    }
}

/// What the port of this index asks for, by one definition of an app.
fn claims<'a>(app: &'a App, definition: &Definition<'a>, index: usize) -> Vec<Asked<'a>> {
    let Some(port) = definition.ports.as_deref().and_then(|ports| ports.get(index)) else { return Vec::new() };
    let number = definition.service_port(index);
    let by_label = definition.labels.port(index).service_port.is_some();
    let on_its_hosts = port.served == Served::OnHost && number.is_some_and(|number| i64::from(number) == port.fixed);
    asked(number, &definition.vips[index], port.protocols, PortClaim { app: &app.id, by_label, on_its_hosts })
}

pub(super) fn good<T>(all: &[Lenient<T>]) -> impl Iterator<Item = &T> {
    all.iter().filter_map(|it| match it {
        Lenient::Good(it) => Some(it),
        Lenient::Bad { .. } => None,
    })
}

/// The address of a host that is one; IPv6 may stand in brackets.
pub(super) fn address_of(host: &str) -> Option<IpAddr> {
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
fn condition(task: &Task) -> Option<TaskState> {
    match task.state.as_str() {
        // Marathon 1.1.1 and earlier say nothing, but list only tasks that have not ended.
        "" if task.started_at.is_empty() => Some(TaskState::Starting),
        "" => Some(TaskState::Running),
        word => mesos(word),
    }
}

/// A state in the words of Mesos.
fn mesos(word: &str) -> Option<TaskState> {
    Some(match word {
        "TASK_RUNNING" => TaskState::Running,
        "TASK_STAGING" | "TASK_STARTING" => TaskState::Starting,
        "TASK_KILLING" => TaskState::Killing,
        "TASK_UNREACHABLE" => TaskState::Unreachable,
        "TASK_FINISHED"
        | "TASK_FAILED"
        | "TASK_KILLED"
        | "TASK_ERROR"
        | "TASK_LOST"
        | "TASK_DROPPED"
        | "TASK_GONE"
        | "TASK_GONE_BY_OPERATOR"
        | "TASK_UNKNOWN" => TaskState::Ended,
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
