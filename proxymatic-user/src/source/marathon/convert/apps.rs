//! Converts apps and their tasks.

use std::collections::BTreeMap;

use super::{reading::Reading, task_state::task_state};
use crate::{
    model::{Health, TaskState, TaskStatus},
    source::marathon::{
        api::{App, Lenient, Task, good},
        definition::Definition,
        health_results::health,
        lookups::{RequiredLookups, parse_address},
        merge::Member,
        ports::{self, Endpoint},
        timestamp::millis,
    },
};

/// Adds the lookups that apps need.
pub(super) fn required_lookups(apps: &[Lenient<App>], required: &mut RequiredLookups) {
    for app in good(apps) {
        for task in good(&app.tasks).filter(|task| task_state(task) != Some(TaskState::Ended)) {
            if !is_current(app, task) {
                required.definitions.insert((app.id.clone(), task.version.clone()));
            }
            if !task.ports.is_empty() && !task.host.is_empty() && parse_address(&task.host).is_none() {
                required.hosts.insert(task.host.clone());
            }
        }
    }
}

impl<'a> Reading<'a> {
    /// Adds an app with its tasks.
    pub(super) fn add_app(&mut self, app: &'a App) {
        let current = self.define(app, app);
        for index in 0..current.ports.as_ref().map_or(0, Vec::len) {
            let labels = current.labels.port(index);
            for claim in current.claims(&app.id, index) {
                self.merge.claim(claim, &labels);
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
                match earlier.entry(&task.version).or_insert_with(|| self.earlier_definition(app, &task.version)) {
                    Some(definition) => &*definition,
                    None => {
                        self.unplaced(&app.id, &task.id);
                        continue;
                    }
                }
            };
            self.add_task(app, definition, task, ready.get(task.id.as_str()).copied());
        }
    }

    /// Adds one task as if the app had no other. Returns whether it was started from the present definition: else
    /// nothing is added.
    pub(super) fn add_single_task(&mut self, app: &'a App, task: &'a Task) -> bool {
        let current = is_current(app, task);
        if current {
            let definition = self.define(app, app);
            self.add_task(app, &definition, task, None);
        }
        current
    }

    /// Reads a definition of an app, and adds its warnings.
    fn define(&mut self, app: &App, definition: &'a App) -> Definition<'a> {
        let definition = Definition::new(definition, self.options, &self.claims);
        for warning in &definition.warnings {
            self.warn(&app.id, warning.clone());
        }
        definition
    }

    /// Returns an earlier definition of an app, if Marathon still has it.
    fn earlier_definition(&mut self, app: &App, version: &str) -> Option<Definition<'a>> {
        let lookups = self.lookups;
        match lookups.definitions.get(&(app.id.clone(), version.to_owned())) {
            Some(Ok(definition)) => Some(self.define(app, definition)),
            Some(Err(reason)) => {
                let left_out = "the ports of the tasks that still run it are not known, so they get no new connections";
                self.warn(&app.id, format!("the definition of version {version} cannot be read: {reason}; {left_out}"));
                None
            }
            // A caller that skips the lookups gets only what is certain without them.
            None => None,
        }
    }

    fn add_task(&mut self, app: &'a App, definition: &Definition<'a>, task: &'a Task, ready: Option<bool>) {
        let condition = self.known_state(&task.id, &task.state, task_state(task));
        let status =
            TaskStatus { condition, health: health(definition.checked, task), ready: is_ready(app, task, ready) };
        if condition == TaskState::Ended {
            return;
        }
        let checked = status.health != Health::Unchecked || has_passed_readiness(app, ready);
        let unchecked = if checked { None } else { self.new_start(&task.started_at) };
        if condition == TaskState::Unreachable {
            self.notes.unreachable.insert(task.id.clone(), app.id.clone());
        }
        let Some(ports) = definition.ports.as_deref() else { return self.unplaced(&app.id, &task.id) };
        if condition == TaskState::Starting && task.ports.is_empty() && task.ip_addresses.is_empty() {
            return; // It has no ports yet.
        }
        let (endpoints, wrong) = match ports::endpoints(ports, task) {
            Ok(endpoints) => endpoints,
            Err(reason) => {
                self.unplaced(&app.id, &task.id);
                return self.warn(&task.id, format!("{reason} (app {})", app.id));
            }
        };
        // An unreachable task is listed without the address of its container.
        if endpoints.len() < ports.len() && condition != TaskState::Starting {
            self.unplaced(&app.id, &task.id);
        }
        for reason in wrong {
            self.warn(&task.id, format!("{reason} (app {})", app.id));
        }
        for Endpoint { index, address, port } in endpoints {
            let claims = definition.claims(&app.id, index);
            if claims.is_empty() {
                continue;
            }
            let address = match address.map_or_else(|| self.lookups.host(&task.host), Ok) {
                Ok(address) => address,
                Err(reason) => {
                    self.unplaced(&app.id, &task.id);
                    self.warn(&task.id, format!("{reason} (app {})", app.id));
                    continue;
                }
            };
            let labels = definition.labels.port(index);
            let member = Member { status, weight: labels.weight, maxconn: labels.maxconn, unchecked };
            for claim in claims {
                self.merge.add(claim, &labels, (task.id.as_str().into(), address, port), member);
            }
        }
    }
}

/// Returns whether a task was started from the app's present definition, or from one that differs only in the number of
/// tasks.
///
/// The versions from the last change of the definition to the present one differ only in the number of tasks, unless a
/// deployment was withdrawn: then Marathon makes no version, but restores the old one, and tasks of the withdrawn version
/// run until the next deployment has replaced them. So such a version is looked up while there is a deployment.
fn is_current(app: &App, task: &Task) -> bool {
    let (version, changed) = (task.version.as_str(), app.version_info.last_config_change_at.as_str());
    let only_scaled = || Some((millis(changed)?..=millis(&app.version)?).contains(&millis(version)?));
    version.is_empty()
        || version == app.version
        || version == changed
        || app.deployments.is_empty() && only_scaled() == Some(true)
}

/// Returns whether a task is ready.
///
/// Only deployments wait for readiness, and only for tasks of the version that they deploy. Without results, all other
/// tasks count as ready: tasks after the deployment, and tasks that are replaced outside of one.
fn is_ready(app: &App, task: &Task, result: Option<bool>) -> bool {
    let awaited = !app.readiness_checks.is_empty() && !app.deployments.is_empty() && task.version == app.version;
    result.unwrap_or(!awaited)
}

/// Returns whether a readiness check covers a task. Results outside of a deployment are not Marathon's.
fn has_passed_readiness(app: &App, result: Option<bool>) -> bool {
    result == Some(true) && !app.readiness_checks.is_empty() && !app.deployments.is_empty()
}
