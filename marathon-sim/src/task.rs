//! A task: its place, its state, and the results of its health checks.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::timestamp::Timestamp;
use super::version::Version;

/// The state that Mesos reports. Listings never show a task in a terminal state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "Mesos' own words")]
pub enum TaskState {
    TaskStaging,
    TaskStarting,
    TaskRunning,
    TaskUnreachable,
    TaskKilling,
    TaskKilled,
    TaskFinished,
    TaskFailed,
    TaskError,
    TaskGone,
    TaskGoneByOperator,
    TaskDropped,
    TaskLost,
    TaskUnknown,
}

impl TaskState {
    /// Returns Marathon's condition of an instance whose task is in this state.
    pub const fn condition(self) -> &'static str {
        match self {
            Self::TaskStaging => "Staging",
            Self::TaskStarting => "Starting",
            Self::TaskRunning => "Running",
            Self::TaskUnreachable => "Unreachable",
            Self::TaskKilling => "Killing",
            Self::TaskKilled => "Killed",
            Self::TaskFinished => "Finished",
            Self::TaskFailed => "Failed",
            Self::TaskError => "Error",
            Self::TaskGone | Self::TaskGoneByOperator | Self::TaskLost => "Gone",
            Self::TaskDropped => "Dropped",
            Self::TaskUnknown => "Unknown",
        }
    }

    /// Whether this state is terminal.
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::TaskStaging | Self::TaskStarting | Self::TaskRunning | Self::TaskUnreachable | Self::TaskKilling => {
                false
            }
            Self::TaskKilled
            | Self::TaskFinished
            | Self::TaskFailed
            | Self::TaskError
            | Self::TaskGone
            | Self::TaskGoneByOperator
            | Self::TaskDropped
            | Self::TaskLost
            | Self::TaskUnknown => true,
        }
    }

    /// Whether the container of a task in this state has started (its address and start are known).
    pub const fn has_started(self) -> bool {
        !matches!(self, Self::TaskStaging | Self::TaskStarting)
    }
}

/// The results so far of one health check of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The latest result.
    pub alive: bool,
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// When it first succeeded.
    pub first_success: Option<Timestamp>,
    /// When it last succeeded.
    pub last_success: Option<Timestamp>,
    /// When it last failed.
    pub last_failure: Option<Timestamp>,
}

impl Health {
    /// Returns `before` with one more result.
    pub fn after(before: Option<&Self>, alive: bool, now: Timestamp) -> Self {
        Self {
            alive,
            consecutive_failures: if alive { 0 } else { before.map_or(0, |b| b.consecutive_failures) + 1 },
            first_success: before.and_then(|b| b.first_success).or(alive.then_some(now)),
            last_success: if alive { Some(now) } else { before.and_then(|b| b.last_success) },
            last_failure: if alive { before.and_then(|b| b.last_failure) } else { Some(now) },
        }
    }
}

/// One task. Its ports are those of its own version, whatever the app's current version.
#[derive(Debug, Clone)]
pub struct Task {
    /// `shop_web.instance-<uuid>._app.1`
    pub id: String,
    /// `shop_web.instance-<uuid>`
    pub instance: String,
    /// The agent host, by Mesos' name.
    pub host: String,
    /// Mesos' id of that agent.
    pub agent: String,
    /// Host ports: one per port definition, or per port mapping that has a `hostPort`.
    pub ports: Vec<u16>,
    /// The container's own address; shown once it has started.
    pub addresses: Vec<IpAddr>,
    /// The state that Mesos reports.
    pub state: TaskState,
    /// Whether Marathon has decided to stop it (its goal; not visible in any JSON).
    pub stopping: bool,
    /// The version of the app that it runs.
    pub version: Arc<Version>,
    /// When it was handed to Mesos.
    pub staged: Timestamp,
    /// When it started.
    pub started: Option<Timestamp>,
    /// By health check of its version; `None` until that check's first result.
    pub health: Vec<Option<Health>>,
    /// The result of the readiness check, during the app's deployment.
    pub ready: Option<bool>,
}

impl Task {
    /// All checks together: `None` until there is a result, then whether every result so far is alive.
    pub fn healthy(&self) -> Option<bool> {
        let mut results = self.health.iter().flatten().peekable();
        results.peek()?;
        Some(results.all(|health| health.alive))
    }
}

/// The place of a new task, and its first state.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Place {
    /// The agent host: a name or an address.
    pub host: String,
    /// Its only host port.
    pub port: Option<u16>,
    /// Its host ports, if there are several; without either the simulator assigns them as Mesos' offers would.
    pub ports: Option<Vec<u16>>,
    /// The container's own address. By default the simulator assigns one; if it is the only way to reach the task
    /// (container mode without host ports), the host's address is used if that is an address.
    pub ip: Option<IpAddr>,
    /// Its state at the end of its start.
    pub state: TaskState,
    /// The first results of its health checks, if it has any: `null` for no result yet.
    pub alive: Option<bool>,
}

impl Default for Place {
    fn default() -> Self {
        let state = TaskState::TaskRunning;
        Self { host: String::new(), port: None, ports: None, ip: None, state, alive: Some(true) }
    }
}

impl Place {
    /// A running, healthy task on one host port.
    pub fn new(host: &str, port: u16) -> Self {
        Self { host: host.into(), port: Some(port), ..Self::default() }
    }

    /// A running, healthy task on several host ports, in the order of the app's port list.
    pub fn with_ports(host: &str, ports: &[u16]) -> Self {
        Self { host: host.into(), ports: Some(ports.into()), ..Self::default() }
    }

    /// Sets the container's own address.
    #[must_use]
    pub fn ip(self, ip: IpAddr) -> Self {
        Self { ip: Some(ip), ..self }
    }

    /// Sets the first results of its health checks.
    #[must_use]
    pub fn alive(self, alive: Option<bool>) -> Self {
        Self { alive, ..self }
    }

    /// Sets its state at the end of its start.
    #[must_use]
    pub fn state(self, state: TaskState) -> Self {
        Self { state, ..self }
    }
}
