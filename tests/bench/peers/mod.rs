//! What a user would pick in our place, each with a configuration of its own: the files
//! here say what each line is there for.

mod haproxy;
mod netfilter;
mod nginx;
mod ours;
mod pen;

use std::{
    env, fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use proxymatic_tests::{lab::Host, process::Process};

use crate::answer;

pub(crate) use self::{
    haproxy::config as haproxy_config,
    pen::{arguments as pen_arguments, config as pen_config},
};

/// The port of the first TCP service.
pub(crate) const FIRST: u16 = 10_000;
/// The UDP service.
pub(crate) const DATAGRAMS: u16 = 9_000;
/// The TCP service with one backend, an iperf3.
pub(crate) const BULK: u16 = 9_001;
/// Where that iperf3 listens.
pub(crate) const IPERF: u16 = 32_000;
/// How many ports the backends have in all.
pub(crate) const PLACES: u16 = 200;
/// Pen is one process of 15 MB for each service.
const MOST_PENS: u16 = 100;

/// One way from a service port to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// No forwarder: clients dial backends. The limit.
    None,
    /// This project, with a policy.
    Ours(&'static str),
    /// HAProxy, as proxymatic configures it; with splicing, which proxymatic does not ask for.
    Haproxy { splice: bool },
    /// Pen, as proxymatic configures it.
    Pen,
    /// nginx, its module stream.
    Nginx,
    /// DNAT by nftables.
    Nftables,
    /// DNAT by iptables.
    Iptables,
    /// IP virtual server.
    Ipvs,
}

/// How many services there are, and how many backends each has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Shape {
    pub(crate) services: u16,
    pub(crate) backends: u16,
}

/// A service as every peer is to have it.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) port: u16,
    pub(crate) udp: bool,
    /// The ports of its backends, all on one address.
    pub(crate) backends: Vec<u16>,
}

/// What a peer is to do, and where.
pub(crate) struct Task<'a> {
    pub(crate) host: &'a Host,
    /// Where its files go: a folder of its own, which any user may write to.
    pub(crate) folder: PathBuf,
    /// The address of all backends.
    pub(crate) backend: Ipv4Addr,
    pub(crate) services: Vec<Service>,
}

impl Shape {
    /// Service `n` of the shape: backends are shared among the services, in turn.
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
    /// What it is called in the results.
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
            Self::Ipvs => "IPVS".into(),
        }
    }

    /// Why it cannot be measured here, in half a sentence.
    pub(crate) fn skipped(self, shape: Shape) -> Option<String> {
        let needs: &[&str] = match self {
            Self::None | Self::Ours(_) => &[],
            Self::Haproxy { .. } => &["haproxy"],
            Self::Pen => &["pen"],
            Self::Nginx => &["nginx"],
            Self::Nftables => &["nft"],
            Self::Iptables => &["iptables-restore"],
            Self::Ipvs => &["ipvsadm"],
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
            // The kernel says so itself, once its module is asked for.
            Self::Ipvs => netfilter::no_ipvs(),
            _ => None,
        }
    }

    /// Whether it forwards UDP at all.
    pub(crate) const fn takes_udp(self) -> bool {
        !matches!(self, Self::Haproxy { .. })
    }

    /// Whether clients dial backends themselves.
    pub(crate) const fn is_direct(self) -> bool {
        matches!(self, Self::None)
    }

    /// What it is, in its own words.
    pub(crate) fn version(self) -> Option<String> {
        match self {
            Self::None | Self::Ours(_) => None,
            Self::Haproxy { .. } => said("haproxy", &["-v"]),
            // It says how it is used, but not which one it is.
            Self::Pen => said("dpkg-query", &["--show", "pen"]),
            Self::Nginx => said("nginx", &["-v"]),
            Self::Nftables => said("nft", &["--version"]),
            Self::Iptables => said("iptables", &["--version"]),
            Self::Ipvs => said("ipvsadm", &["--version"]),
        }
    }

    /// Starts it on a host, so that it serves.
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
            Self::Ipvs => netfilter::ipvs(task),
        }
        .with_context(|| format!("start {}", self.name()))
    }
}

impl Task<'_> {
    /// Writes a file into the folder and says its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<String> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path.to_str().context("the run directory is not UTF-8")?.to_owned())
    }
}

/// The first line of what a program says of itself.
pub(crate) fn said(name: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program(name).ok()?).args(arguments).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let line = String::from_utf8_lossy(&text).lines().find(|line| !line.trim().is_empty())?.trim().to_owned();
    Some(line)
}

/// Where a program of the distribution is.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut rooms: Vec<_> = env::split_paths(&path).collect();
    rooms.push("/usr/sbin".into());
    let found = rooms.into_iter().map(|room| room.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("no program {name}; --install brings it"))
}
