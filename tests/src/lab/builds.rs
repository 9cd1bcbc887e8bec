//! Other builds of the agent on a host, and clients that hold their sockets during a takeover.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::host::{Host, Load};
use crate::cgroup::Cgroup;
use crate::eventually::{PATIENCE, eventually_ok};
use crate::process::{Finished, Process, binary};

impl Host {
    /// Starts a build of the agent, by the name of its binary, for the programs of a cgroup.
    pub fn agent_built(&self, build: &str, cgroup: &Cgroup, more: &[&str]) -> Result<Process> {
        self.agent_program(&binary(build)?, cgroup, more)
    }

    /// Runs a command of a build against the agent and the pins of this host.
    pub fn proxymatic_built(&self, build: &str, arguments: &[&str]) -> Result<Finished> {
        let (pins, socket) = (self.pins().display().to_string(), self.socket().display().to_string());
        let here = ["--bpffs", &pins, "--socket", &socket];
        self.run(&binary(build)?, &[&here, arguments].concat(), PATIENCE)
    }

    /// Waits until a build's status reports that all sources are applied.
    pub fn built_serves(&self, build: &str, timeout: Duration) -> Result<()> {
        eventually_ok(&format!("{build} serves"), timeout, || {
            let said = self.proxymatic_built(build, &["-j", "status"])?.stdout;
            let status: Value = serde_json::from_str(&said).with_context(|| format!("status printed {said:?}"))?;
            let hooks = status["hooks"].as_array().map_or(0, Vec::len);
            ensure!(status["agent"]["state"] == "OK" && hooks == 12, "{said}");
            let wrong = status["problems"].as_array().cloned().unwrap_or_default();
            ensure!(!wrong.iter().any(|it| it.as_str().is_some_and(|it| it.contains("still serves"))), "{said}");
            Ok(())
        })
    }

    /// Starts clients that hold sockets of each kind and open new ones, until [`Load::finish`]: see `hold-connections`.
    pub fn hold_connections(&self, service: SocketAddr, clients: u8) -> Result<Load> {
        let arguments = ["--service", &service.to_string(), "--clients", &clients.to_string()];
        let load = Load { process: self.spawn(&binary("hold-connections")?, &arguments)? };
        load.reaches(1)?;
        Ok(load)
    }
}
