//! The simulated Marathon as a process on a host, with its control endpoint.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::host::Host;
use crate::eventually::PATIENCE;
use crate::net::host_address;
use crate::process::{Process, binary};

/// A running `marathon-sim`.
#[derive(Debug)]
pub struct Sim<'lab> {
    host: &'lab Host,
    address: SocketAddr,
    /// The process, for tests that stop it.
    pub process: Process,
}

impl<'lab> Sim<'lab> {
    /// Starts it on a host, with `more` arguments.
    pub fn start(host: &'lab Host, port: u16, more: &[&str]) -> Result<Self> {
        let address = SocketAddr::from((host.address(), port));
        let listen = ["--listen", &address.to_string()];
        let mut process = host.spawn(&binary("marathon-sim")?, &[&listen, more].concat())?;
        process.said("listening on", PATIENCE)?;
        Ok(Self { host, address, process })
    }

    /// The address that the simulator listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Deploys a TCP app in host mode; its tasks run at once, each on a host (by number) and a port. Returns their ids.
    pub fn app(&self, id: &str, service_port: u16, tasks: &[(u8, u16)]) -> Result<Vec<String>> {
        let tasks: Vec<Value> =
            tasks.iter().map(|(host, port)| json!({ "host": host_address(*host), "port": port })).collect();
        let app = json!({ "id": id, "servicePort": service_port, "protocol": "tcp", "mode": "host", "tasks": tasks });
        let answer = self.control("apps", &app)?;
        let ids =
            answer["tasks"].as_array().and_then(|ids| ids.iter().map(|id| id.as_str().map(str::to_owned)).collect());
        ids.with_context(|| format!("marathon-sim answered {answer}"))
    }

    /// Starts one more task of an app; returns its id.
    pub fn task(&self, app: &str, host: u8, port: u16) -> Result<String> {
        let answer = self.control("tasks", &json!({ "app": app, "host": host_address(host), "port": port }))?;
        answer["task"].as_str().map(str::to_owned).with_context(|| format!("marathon-sim answered {answer}"))
    }

    /// Moves a task to another state, such as `TASK_KILLING`.
    pub fn state(&self, task: &str, state: &str) -> Result<()> {
        self.control("state", &json!({ "task": task, "state": state })).map(drop)
    }

    /// Returns its state: its leader, its apps and their tasks with their health results.
    pub fn holds(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.host.call("GET", self.address, "/sim/state", "")?)?)
    }

    /// Counts the requests since the log was cleared whose path is this one, or lies below it if it is `/v2`.
    pub fn requests(&self, path: &str) -> Result<usize> {
        let log: Value = serde_json::from_str(&self.host.call("GET", self.address, "/sim/log", "")?)?;
        let is =
            |it: &&Value| it["path"].as_str().is_some_and(|it| it == path || path == "/v2" && it.starts_with("/v2/"));
        Ok(log.as_array().map_or(0, |all| all.iter().filter(is).count()))
    }

    /// Clears the log of requests.
    pub fn forget_requests(&self) -> Result<()> {
        self.host.call("DELETE", self.address, "/sim/log", "").map(drop)
    }

    /// Sends any other control command.
    pub fn control(&self, what: &str, question: &Value) -> Result<Value> {
        let answer = self.host.call("POST", self.address, &format!("/sim/{what}"), &question.to_string())?;
        Ok(if answer.trim().is_empty() { Value::Null } else { serde_json::from_str(&answer)? })
    }
}
