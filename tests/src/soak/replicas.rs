//! A service of the soak: the processes of its replicas, and their tasks.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::allowed_failures::{EndedReplica, Killed};
use crate::eventually::eventually_ok;
use crate::lab::{Lab, PATIENCE, Replica, SocketProgram};

/// A service and its replicas.
#[derive(Debug)]
pub(super) struct Replicas {
    pub(super) app: &'static str,
    pub(super) port: u16,
    pub(super) udp: bool,
    pub(super) members: Vec<Member>,
}

/// A replica.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) task: String,
    pub(super) address: SocketAddr,
    host: u8,
    process: Running,
}

#[derive(Debug)]
enum Running {
    Http(Box<Replica>),
    Datagrams(SocketProgram),
}

impl Member {
    /// Starts the process, before it has a task.
    pub(super) fn start(lab: &Lab, udp: bool, host: u8, port: u16, name: String) -> Result<Self> {
        let address = SocketAddr::from((lab.host(host).address(), port));
        let process = if udp {
            let mut server = lab.host(host).datagrams_in(lab.host(host).cgroup())?;
            let said = server.tell(&format!("serve {address} {name}"))?;
            ensure!(said == "ok", "{address}: {said}");
            Running::Datagrams(server)
        } else {
            Running::Http(Box::new(lab.replica(host, port, &name)?))
        };
        Ok(Self { name, task: String::new(), address, host, process })
    }

    /// The address of its task, in the simulator's form.
    pub(super) fn place(&self) -> Value {
        json!({ "host": self.address.ip(), "port": self.address.port() })
    }

    /// Waits until no client is connected to it.
    pub(super) fn is_alone(&self, lab: &Lab) -> Result<()> {
        let port = format!(":{}", self.address.port());
        let connected = ["-Htn", "state", "connected", "exclude", "time-wait", "sport", "=", &port];
        eventually_ok(&format!("no client is connected to {}", self.name), PATIENCE, || {
            let said = lab.host(self.host).run("ss".as_ref(), &connected, PATIENCE)?.well()?.stdout;
            ensure!(said.trim().is_empty(), "{said}");
            Ok(())
        })
    }

    /// Ends the process by SIGTERM: it finishes open requests.
    pub(super) fn leave(self) -> Result<()> {
        match self.process {
            Running::Http(mut replica) => {
                let left = replica.terminate()?;
                ensure!(left.success(), "{} failed: {left}", self.name);
                Ok(())
            }
            // The process keeps no state and gets no more requests.
            Running::Datagrams(server) => server.kill9(),
        }
    }

    /// Kills the process, and returns the times.
    pub(super) fn die(self) -> Result<(f64, f64)> {
        let begun = now();
        match self.process {
            Running::Http(mut replica) => replica.process.kill9().map(drop)?,
            Running::Datagrams(server) => server.kill9()?,
        }
        Ok((begun, now()))
    }
}

impl Replicas {
    /// Converts it into a record for the verdict.
    pub(super) fn ended(&self, name: String, killed: Option<Killed>) -> EndedReplica {
        EndedReplica { port: self.port, name, killed }
    }

    /// Assigns the simulator's tasks to replicas, in order, and adds the replicas.
    pub(super) fn join(&mut self, members: Vec<Member>, tasks: &Value) -> Result<()> {
        let tasks: Vec<String> = serde_json::from_value(tasks.clone()).context("no tasks")?;
        ensure!(tasks.len() == members.len(), "{} members, tasks {tasks:?}", members.len());
        self.members.extend(members.into_iter().zip(tasks).map(|(member, task)| Member { task, ..member }));
        Ok(())
    }
}

/// Seconds since the epoch, on the clients' clock.
pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}
