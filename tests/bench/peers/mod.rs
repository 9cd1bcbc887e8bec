//! The peers that this project is compared with, each with a configuration of its own; the files here give the reason
//! for each line.

mod haproxy;
mod netfilter;
mod nginx;
mod ours;
mod pen;
mod task;

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use proxymatic_tests::process::Process;

use crate::{
    answer,
    programs::{program, version},
};

pub(crate) use self::{
    haproxy::config as haproxy_config,
    pen::{arguments as pen_arguments, config as pen_config},
    task::{Service, Task},
};

/// The port of the first TCP service.
pub(crate) const FIRST: u16 = 10_000;
/// The UDP service.
pub(crate) const DATAGRAMS: u16 = 9_000;
/// The TCP service with one backend, an iperf3.
pub(crate) const BULK: u16 = 9_001;
/// The address of that iperf3.
pub(crate) const IPERF: u16 = 32_000;
/// The number of ports of all backends.
pub(crate) const PLACES: u16 = 200;
/// Pen is one process of 15 MB for each service.
const MOST_PENS: u16 = 100;

/// One way from a service port to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// No forwarder: clients connect to backends. The upper limit.
    None,
    /// This project, with a policy.
    Ours(&'static str),
    /// HAProxy, as proxymatic configures it; with splicing, which proxymatic does not configure.
    Haproxy { splice: bool },
    /// Pen, as proxymatic configures it.
    Pen,
    /// nginx, its module stream.
    Nginx,
    /// DNAT by nftables.
    Nftables,
    /// DNAT by iptables.
    Iptables,
}

/// The number of services, and of backends of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Shape {
    pub(crate) services: u16,
    pub(crate) backends: u16,
}

impl Shape {
    /// Returns service `n` of the shape: services share backends in turn.
    pub(crate) fn services(self) -> Vec<Service> {
        let place =
            |n: u16, k: u16| ((u32::from(n) * u32::from(self.backends) + u32::from(k)) % u32::from(PLACES)) as u16;
        let tcp = |n: u16| Service {
            port: FIRST + n,
            udp: false,
            backends: (0..self.backends).map(|k| answer::TCP + place(n, k)).collect(),
        };
        let udp = (0..self.backends).map(|k| answer::UDP + k).collect();
        let mut services: Vec<_> = (0..self.services).map(tcp).collect();
        services.push(Service { port: DATAGRAMS, udp: true, backends: udp });
        services.push(Service { port: BULK, udp: false, backends: vec![IPERF] });
        services
    }
}

impl Peer {
    /// Its name in the results.
    pub(crate) fn name(self) -> String {
        match self {
            Self::None => "no forwarder".into(),
            Self::Ours("leastconn") => "proxymatic".into(),
            Self::Ours(policy) => format!("proxymatic, {policy}"),
            Self::Haproxy { splice: false } => "haproxy".into(),
            Self::Haproxy { splice: true } => "haproxy, splice".into(),
            Self::Pen => "pen".into(),
            Self::Nginx => "nginx stream".into(),
            Self::Nftables => "nftables DNAT".into(),
            Self::Iptables => "iptables DNAT".into(),
        }
    }

    /// The reason why it cannot be measured here, as part of a sentence.
    pub(crate) fn skipped(self, shape: Shape) -> Option<String> {
        let needs: &[&str] = match self {
            Self::None | Self::Ours(_) => &[],
            Self::Haproxy { .. } => &["haproxy"],
            Self::Pen => &["pen"],
            Self::Nginx => &["nginx"],
            Self::Nftables => &["nft"],
            Self::Iptables => &["iptables-restore"],
        };
        if let Some(missing) = needs.iter().find(|it| program(it).is_err()) {
            return Some(format!("{missing} is not installed; --install does it"));
        }
        match self {
            Self::Nginx if !Path::new(nginx::MODULE).exists() => {
                Some("nginx has no module stream; --install brings libnginx-mod-stream".into())
            }
            Self::Pen if shape.services > MOST_PENS => {
                Some(format!("{} processes of 15 MB, one for each service", shape.services))
            }
            _ => None,
        }
    }

    /// Whether it forwards UDP.
    pub(crate) const fn takes_udp(self) -> bool {
        !matches!(self, Self::Haproxy { .. })
    }

    /// Whether clients connect to backends directly.
    pub(crate) const fn is_direct(self) -> bool {
        matches!(self, Self::None)
    }

    /// Its version, in its own words.
    pub(crate) fn version(self) -> Option<String> {
        match self {
            Self::None | Self::Ours(_) => None,
            Self::Haproxy { .. } => version("haproxy", &["-v"]),
            // It prints its usage, but not its version.
            Self::Pen => version("dpkg-query", &["--show", "pen"]),
            Self::Nginx => version("nginx", &["-v"]),
            Self::Nftables => version("nft", &["--version"]),
            Self::Iptables => version("iptables", &["--version"]),
        }
    }

    /// Starts it on a host, and returns when it serves.
    pub(crate) fn start(self, task: &Task<'_>) -> Result<Vec<Process>> {
        fs::create_dir_all(&task.folder)?;
        match self {
            Self::None => Ok(Vec::new()),
            Self::Ours(policy) => ours::start(task, policy),
            Self::Haproxy { splice } => haproxy::start(task, splice),
            Self::Pen => pen::start(task),
            Self::Nginx => nginx::start(task),
            Self::Nftables => netfilter::nftables(task),
            Self::Iptables => netfilter::iptables(task),
        }
        .with_context(|| format!("start {}", self.name()))
    }
}
