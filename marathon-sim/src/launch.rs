//! Placement of tasks: agents, host ports, container addresses and ids, assigned in a fixed order.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::api_version::Dialect;
use super::error::CommandError;
use super::ports::Mode;
use super::task::{Health, Place, Task};
use super::timestamp::Timestamp;
use super::version::Version;

/// The first dynamic host port, and their number (Mesos' default offer).
const HOST_PORTS: (u16, u16) = (31_000, 1001);

/// The agents of Mesos, as far as tasks show them.
#[derive(Debug, Default)]
pub(super) struct Agents {
    ids: BTreeMap<String, String>,
    /// The form of the tasks' ids.
    pub(super) dialect: Dialect,
    serial: u32,
    next_port: u16,
}

impl Agents {
    /// Makes a task of `version` at each place, before any event. Fails for all if one place is invalid.
    pub(super) fn place(
        &mut self,
        app: &str,
        version: &Arc<Version>,
        places: &[Place],
        now: Timestamp,
    ) -> Result<Vec<Task>, CommandError> {
        places.iter().map(|place| self.place_one(app, version, place, now)).collect()
    }

    fn place_one(
        &mut self,
        app: &str,
        version: &Arc<Version>,
        place: &Place,
        now: Timestamp,
    ) -> Result<Task, CommandError> {
        if place.state.is_terminal() {
            return Err(CommandError::new(
                "a new task is TASK_STAGING, TASK_STARTING, TASK_RUNNING, TASK_UNREACHABLE or TASK_KILLING",
            ));
        }
        let ports = self.ports(app, version, place)?;
        self.serial += 1;
        let started = place.state.has_started().then_some(now);
        let (id, instance) = self.dialect.ids(&app.trim_start_matches('/').replace('/', "_"), &uuid(self.serial, now));
        let verdict = place.alive.filter(|_| started.is_some());
        let health = verdict.map(|alive| Health::after(None, alive, now));
        let agent = self.id(&place.host);
        Ok(Task {
            id,
            instance,
            agent,
            host: place.host.clone(),
            ports,
            addresses: self.addresses(version, place),
            state: place.state,
            stopping: place.state.condition() == "Killing",
            version: Arc::clone(version),
            staged: now,
            started,
            health: vec![health; version.checks.len()],
            ready: None,
        })
    }

    fn ports(&mut self, app: &str, version: &Version, place: &Place) -> Result<Vec<u16>, CommandError> {
        let need = version.host_ports();
        let given = match (&place.ports, place.port) {
            (Some(_), Some(_)) => return Err(CommandError::new("a task has either \"port\" or \"ports\", not both")),
            (Some(ports), None) => Some(ports.clone()),
            (None, Some(inside)) if need == 0 => {
                if !version.ports.iter().any(|port| port.container == inside) {
                    let known: Vec<u16> = version.ports.iter().map(|port| port.container).collect();
                    return Err(CommandError::new(format!(
                        "{app} has no host ports, so every task listens on the containerPorts {known:?}, not on {inside}"
                    )));
                }
                Some(Vec::new())
            }
            (None, Some(port)) => Some(vec![port]),
            (None, None) => None,
        };
        match given {
            Some(ports) if ports.len() == need => Ok(ports),
            Some(ports) => {
                Err(CommandError::new(format!("a task of {app} has {need} host ports, but {} were given", ports.len())))
            }
            None => {
                let asked: Vec<u16> = version.ports.iter().filter_map(|port| port.host).collect();
                Ok(asked.into_iter().map(|port| if port == 0 { self.offer() } else { port }).collect())
            }
        }
    }

    /// Returns Mesos' id of the agent on a host.
    pub(super) fn id(&mut self, host: &str) -> String {
        let agents = self.ids.len();
        self.ids.entry(host.to_owned()).or_insert_with(|| format!("6f1c2a90-51d0-4e0a-sim-S{agents}")).clone()
    }

    /// Returns the next dynamic host port.
    pub(super) fn offer(&mut self) -> u16 {
        let (first, count) = HOST_PORTS;
        let port = first + self.next_port;
        self.next_port = (self.next_port + 1) % count;
        port
    }

    /// Returns the addresses that Mesos reports: the agent's, one behind the bridge, or the container's own.
    fn addresses(&self, version: &Version, place: &Place) -> Vec<IpAddr> {
        let [_, b, c, d] = self.serial.to_be_bytes();
        let host = place.host.parse().ok();
        match (place.ip, version.mode) {
            (Some(ip), Mode::Host | Mode::Bridge | Mode::Container) => vec![ip],
            (None, Mode::Host) => host.into_iter().collect(),
            (None, Mode::Bridge) => vec![Ipv4Addr::new(172, 17, c, d).into()],
            (None, Mode::Container) => {
                let reachable = host.filter(|_| version.host_ports() == 0);
                vec![reachable.unwrap_or_else(|| Ipv4Addr::new(9, b, c, d).into())]
            }
        }
    }
}

/// Unique within a run, and by its time between runs; in the order of starting.
fn uuid(serial: u32, now: Timestamp) -> String {
    format!("{serial:08x}-0000-11ea-8000-{:012x}", now.millis())
}
