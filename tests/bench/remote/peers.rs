//! The peers of the comparison: each is started on the host in the middle, serves one port, and is removed again.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use proxymatic_tests::{
    eventually::eventually_ok,
    lab::{Lab, PATIENCE, binary},
    net::interface,
    process::Process,
};
use serde_json::json;

use super::hosts::{CPU, DIRECT, INNER, MIDDLE, OUTER, PORT, middle, nft, server};

/// The path of packets from clients to servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Peer {
    /// No forwarding: a cable from clients to servers.
    Direct,
    /// The host in the middle routes and translates nothing.
    Routed,
    /// Netfilter there translates both ends, by a map of ports.
    Nftables,
    /// HAProxy there, as meltwater/proxymatic configures it.
    Haproxy,
    /// This project, by TC.
    Tc,
    /// This project, by XDP if possible.
    Xdp,
}

/// A peer that is running.
pub(super) struct Running {
    peer: Peer,
    process: Option<Process>,
    /// Processes of the host in the middle besides the threads that fetch packets.
    pub(super) workers: Vec<u32>,
}

impl Peer {
    pub(super) const ALL: [Self; 6] = [Self::Direct, Self::Routed, Self::Nftables, Self::Haproxy, Self::Tc, Self::Xdp];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Routed => "routed",
            Self::Nftables => "nftables",
            Self::Haproxy => "haproxy",
            Self::Tc => "tc",
            Self::Xdp => "xdp",
        }
    }

    pub(super) fn takes_datagrams(self) -> bool {
        self != Self::Haproxy
    }

    /// The address for clients.
    pub(super) fn destination(self) -> SocketAddr {
        match self {
            Self::Direct => server(DIRECT),
            Self::Routed => server(INNER),
            Self::Nftables | Self::Haproxy | Self::Tc | Self::Xdp => (middle(), PORT).into(),
        }
    }

    /// Starts it, and returns when it serves.
    pub(super) fn start(self, lab: &Lab) -> Result<Running> {
        let process = match self {
            Self::Direct | Self::Routed => None,
            Self::Nftables => {
                nft(lab.host(MIDDLE), &translation())?;
                None
            }
            Self::Haproxy => Some(haproxy(lab)?),
            Self::Tc => Some(agent(lab, &[])?),
            Self::Xdp => Some(agent(lab, &["--xdp", "native"])?),
        };
        let workers = match (self, &process) {
            (Self::Haproxy, Some(process)) => vec![process.pid()?.as_raw().unsigned_abs()],
            _ => Vec::new(),
        };
        Ok(Running { peer: self, process, workers })
    }
}

impl Running {
    /// Removes it completely.
    pub(super) fn stop(self, lab: &Lab) -> Result<()> {
        let host = lab.host(MIDDLE);
        if let Some(mut process) = self.process {
            process.terminate(PATIENCE)?;
        }
        match self.peer {
            Peer::Direct | Peer::Routed | Peer::Haproxy => Ok(()),
            Peer::Nftables => nft(host, "flush ruleset"),
            Peer::Tc | Peer::Xdp => host.proxymatic(&["detach"])?.well().map(drop),
        }
    }
}

/// As kube-proxy does: one rule and a map for any number of services.
fn translation() -> String {
    let to = server(INNER);
    let to = format!("{} . {}", to.ip(), to.port());
    let map = |protocol: &str| format!("dnat ip to {protocol} dport map {{ {PORT} : {to} }}\n");
    format!(
        "table ip service {{\n chain in {{\n type nat hook prerouting priority dstnat;\n ip daddr {} {}ip daddr {} {}}}\n \
         chain out {{\n type nat hook postrouting priority srcnat;\n oifname {} masquerade\n }}\n}}\n",
        middle(),
        map("tcp"),
        middle(),
        map("udp"),
        interface(INNER),
    )
}

fn haproxy(lab: &Lab) -> Result<Process> {
    let file = lab.run_dir().join("haproxy.cfg");
    fs::write(&file, include_str!("haproxy.cfg").replace("BACKEND", &server(INNER).to_string()))?;
    let file = file.to_str().context("a path that is not UTF-8")?;
    let host = lab.host(MIDDLE);
    // In the foreground, so that this process does the work.
    let process = host.spawn(Path::new("taskset"), &["-c", CPU, "/usr/sbin/haproxy", "-db", "-f", file])?;
    eventually_ok("HAProxy listens", PATIENCE, || {
        let said = host.run(Path::new("ss"), &["-Htln", "sport", &format!("= :{PORT}")], PATIENCE)?.stdout;
        ensure!(!said.trim().is_empty(), "{}", process.log());
        Ok(())
    })?;
    Ok(process)
}

fn agent(lab: &Lab, more: &[&str]) -> Result<Process> {
    let (host, to) = (lab.host(MIDDLE), server(INNER));
    let backends = json!([{ "address": to.ip(), "port": to.port() }]);
    let service = |protocol| json!({ "name": protocol, "port": PORT, "protocol": protocol, "expose": true, "backends": backends });
    let file = lab.run_dir().join("services.json");
    fs::write(&file, json!({ "services": [service("tcp"), service("udp")] }).to_string())?;
    let (outer, inner) = (interface(OUTER), interface(INNER));
    let interfaces =
        ["--interface", &outer, "--interface", &inner, "--file", file.to_str().context("a path that is not UTF-8")?];
    let process = host.agent_program(&binary("proxymatic")?, host.cgroup(), &[&interfaces, more].concat())?;
    host.agent_ready(PATIENCE).with_context(|| process.log())?;
    eventually_ok("both services are there", PATIENCE, || {
        let there = host.services()?;
        ensure!(there.len() == 2 && there.iter().all(|it| it.active().count() == 1), "{there:?}");
        Ok(())
    })?;
    Ok(process)
}
