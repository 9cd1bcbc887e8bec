//! Services whose replicas answer with one word, over TCP and UDP, at addresses of either family.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::lab::{Dialer, Lab, PATIENCE, Sim, binary};
use proxymatic_tests::net::{host_address, host_address6};
use proxymatic_tests::process::Process;
use serde_json::json;

use crate::served::place;

/// A service of both protocols on one port.
pub(crate) struct Words {
    /// The id of the app.
    pub(crate) app: &'static str,
    pub(crate) port: u16,
    /// Where each of its replicas is, and what it answers.
    pub(crate) replicas: &'static [(At, &'static str)],
}

/// A replica's place: the host by its number, and its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum At {
    V4(u8, u16),
    V6(u8, u16),
}

/// Marathon and an agent on host 1, and the replicas wherever they are.
pub(crate) struct Answered<'lab> {
    pub(crate) agent: Process,
    _sim: Sim<'lab>,
    _servers: Vec<Dialer>,
}

impl At {
    pub(crate) fn address(self) -> SocketAddr {
        match self {
            Self::V4(host, port) => (IpAddr::from(host_address(host)), port).into(),
            Self::V6(host, port) => (IpAddr::from(host_address6(host)), port).into(),
        }
    }

    fn host(self) -> u8 {
        let (Self::V4(host, _) | Self::V6(host, _)) = self;
        host
    }
}

impl<'lab> Answered<'lab> {
    /// Starts all of it, the agent with `more` arguments, and returns when every replica gets connections.
    pub(crate) fn start(lab: &'lab Lab, services: &[Words], more: &[&str]) -> Result<Self> {
        // Services may share a replica.
        let words: BTreeMap<_, _> = services.iter().flat_map(|service| service.replicas).copied().collect();
        let mut servers = BTreeMap::new();
        for (at, word) in words {
            let server = match servers.entry(at.host()) {
                Entry::Occupied(running) => running.into_mut(),
                Entry::Vacant(none) => {
                    let host = lab.host(at.host());
                    none.insert(host.program_in(host.cgroup(), &binary("attempts")?, &[])?)
                }
            };
            ensure!(server.tell(&format!("serve {} {word}", at.address()))? == "ok", "{at:?} is taken");
        }
        let (agent, sim) = publish(lab, services, more)?;
        Ok(Self { agent, _sim: sim, _servers: servers.into_values().collect() })
    }
}

/// Starts Marathon with these services and the agent, and returns when every replica gets connections.
pub(crate) fn publish<'lab>(lab: &'lab Lab, services: &[Words], more: &[&str]) -> Result<(Process, Sim<'lab>)> {
    let sim = lab.sim()?;
    for Words { app, port, replicas } in services {
        let places: Vec<_> = replicas.iter().map(|(at, _)| place(at.address())).collect();
        sim.control("apps", &json!({ "id": app, "servicePort": port, "protocol": "udp,tcp", "tasks": places }))?;
    }
    let agent = lab.agent(more)?;
    lab.host(1).agent_ready(PATIENCE)?;
    let wanted: usize = services.iter().map(|service| 2 * service.replicas.len()).sum();
    eventually_ok("every replica gets connections", PATIENCE, || {
        let rows = lab.host(1).services()?;
        let active: usize = rows.iter().map(|row| row.active().count()).sum();
        ensure!(active == wanted, "{active} of {wanted}: {rows:?}");
        Ok(())
    })?;
    Ok((agent, sim))
}
