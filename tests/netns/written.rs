//! Services that are written down in a file, which an agent on host 1 serves.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::cgroup::Cgroup;
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::lab::{Lab, PATIENCE, Replica};
use proxymatic_tests::process::Process;
use serde_json::{Value, json};

use crate::served::{PORT, place, replica_address};

/// An agent and its file.
pub(crate) struct Written<'lab> {
    lab: &'lab Lab,
    pub(crate) agent: Process,
    file: PathBuf,
}

impl<'lab> Written<'lab> {
    /// Starts the agent with `more` arguments, and returns when all backends that are written down get connections.
    pub(crate) fn start(lab: &'lab Lab, services: &[Value], more: &[&str]) -> Result<Self> {
        Self::start_for(lab, lab.host(1).cgroup(), services, more)
    }

    /// The same for the programs of another cgroup.
    pub(crate) fn start_for(lab: &'lab Lab, cgroup: &Cgroup, services: &[Value], more: &[&str]) -> Result<Self> {
        let file = lab.run_dir().join("services.json");
        write(&file, services)?;
        let path = file.to_str().context("a strange path")?.to_owned();
        let agent = lab.host(1).agent_of(cgroup, &[&["--file", &path], more].concat())?;
        lab.host(1).agent_ready(PATIENCE)?;
        let written = Self { lab, agent, file };
        written.when_served(services)?;
        Ok(written)
    }

    /// Writes other services, of which some may not be served.
    pub(crate) fn write_only(&self, services: &[Value]) -> Result<()> {
        write(&self.file, services)
    }

    /// Writes other services, and returns when they are served.
    pub(crate) fn rewrite(&self, services: &[Value]) -> Result<()> {
        write(&self.file, services)?;
        self.when_served(services)
    }

    fn when_served(&self, services: &[Value]) -> Result<()> {
        let places = |rows: &[Value]| -> Vec<(Value, Value)> {
            rows.iter().map(|row| (row["address"].clone(), row["port"].clone())).collect()
        };
        eventually_ok("what is written is served", PATIENCE, || {
            let rows = self.lab.host(1).services()?;
            ensure!(rows.len() == services.len(), "{rows:?}");
            for wanted in services {
                let row = rows.iter().find(|row| wanted["name"] == row.name).context("not yet")?;
                let has: Vec<_> = row.backends.iter().map(|it| (json!(it.address), json!(it.port))).collect();
                let backends = wanted["backends"].as_array().context("no backends")?;
                ensure!(wanted["policy"].is_null() || wanted["policy"] == row.policy, "{row:?}");
                ensure!(has == places(backends) && row.active().count() == has.len(), "{row:?}");
            }
            Ok(())
        })
    }
}

/// A TCP service on the usual port, with backends as [`backends`] gives them and whatever else a file may say of it.
pub(crate) fn service(backends: &[Value], more: &[(&str, Value)]) -> Value {
    let mut service = json!({ "name": "web", "port": PORT, "backends": backends });
    for (key, value) in more {
        service[*key] = value.clone();
    }
    service
}

/// So many replicas on host 2, called `a`, `b` and so on.
pub(crate) fn replicas(lab: &Lab, count: u8) -> Result<Vec<Replica>> {
    (0..count).map(|nth| lab.replica(2, replica_address(nth.into()).port(), &name(nth))).collect()
}

/// The name of the n-th replica, from 0.
pub(crate) fn name(nth: u8) -> String {
    char::from(b'a' + nth).to_string()
}

/// How replicas are written down.
pub(crate) fn backends(replicas: &[Replica]) -> Vec<Value> {
    replicas.iter().map(|it| backend(it.address)).collect()
}

/// How one backend is written down.
pub(crate) fn backend(address: SocketAddr) -> Value {
    json!({ "address": place(address)["host"], "port": address.port() })
}

/// By rename, so that no half of it is read.
fn write(file: &Path, services: &[Value]) -> Result<()> {
    let next = file.with_extension("next");
    fs::write(&next, json!({ "services": services }).to_string())?;
    fs::rename(&next, file).with_context(|| format!("rename to {}", file.display()))
}
