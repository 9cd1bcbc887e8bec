//! The flags that several commands or parts share, and the check of numbers.

use std::{
    collections::BTreeSet,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use proxymatic_common::Loopback;

use crate::{
    agent::GlobalSettings,
    dataplane::kernel::cgroup_root,
    model::{AllowRule, MAX_NEW, duration},
    plan::Exposed,
};

/// The location of the data plane and its agent.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct PinArgs {
    /// The folder of the pins, on a BPF file system.
    #[arg(long, global = true, value_name = "DIR", default_value = "/sys/fs/bpf/proxymatic", env = "BPFFS")]
    pub(super) bpffs: PathBuf,
    /// The socket on which the agent answers commands.
    #[arg(long, global = true, value_name = "PATH", default_value = "/run/proxymatic.sock", env = "AGENT_SOCKET")]
    pub(super) socket: PathBuf,
}

impl PinArgs {
    /// Returns the path of the file with the ports that the agent has reserved.
    pub(super) fn reserved(&self) -> PathBuf {
        self.socket.with_extension("reserved-ports")
    }
}

/// Clamps a number to its limits, and adds a sentence to `wrong` if it was outside of them.
pub(super) fn bounded(flag: &str, value: u32, least: u32, most: u32, unit: &str, wrong: &mut Vec<String>) -> u32 {
    if !(least..=most).contains(&value) {
        wrong.push(format!("{flag} {value}: must be {least} to {most} {unit}"));
    }
    value.clamp(least, most)
}

/// The settings for all services: `run` writes them, and `plan show` needs them to compute the changes.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SettingsArgs {
    /// The limit of open connections from this host to one service; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 8192, env = "MAX_CONNECTIONS")]
    max_connections: u32,
    /// A cgroup whose programs the hooks leave alone, with all cgroups below: a path as in /proc/PID/cgroup.
    /// Repeatable.
    #[arg(long, value_name = "PATH", env = "EXCLUDE_CGROUP", value_delimiter = ',')]
    exclude_cgroup: Vec<PathBuf>,
    /// A network interface on which remote clients arrive, by name. Repeatable. Without it only programs on this host
    /// are served.
    #[arg(long, value_name = "NAME", env = "INTERFACE", value_delimiter = ',')]
    interface: Vec<String>,
    /// Serve all services to remote clients, not only those with the label `expose`.
    #[arg(long, env = "EXPOSE", value_parser = clap::builder::BoolishValueParser::new())]
    expose: bool,
    /// The ports that may be service ports on this host, such as 80,443,1024-65535; without it all.
    #[arg(long, value_name = "RANGES", env = "SERVICE_PORTS", value_delimiter = ',')]
    service_ports: Vec<String>,
    /// How long after its start a task without a check is new, such as 5s: the agent probes its TCP backends, and uses
    /// each from its first answer on, or when it is no longer new. 0 for no probes; 60s at most.
    #[arg(long, value_name = "DURATION", default_value = "5s", env = "FIRST_ANSWER")]
    first_answer: String,
}

impl SettingsArgs {
    /// Checks the arguments. The cgroups need not exist yet.
    pub(super) fn check(&self, wrong: &mut Vec<String>) -> GlobalSettings {
        // A path in the mounted tree means the cgroup with that folder.
        let root = cgroup_root().unwrap_or_default();
        let exposed = self.exposed(wrong);
        let mut settings = GlobalSettings {
            max_connections: self.max_connections,
            exposed,
            service_ports: self.service_ports(wrong),
            first_answer: self.first_answer(wrong),
            ..GlobalSettings::default()
        };
        for path in &self.exclude_cgroup {
            let below = path.strip_prefix(&root).map_or_else(|_| path.clone(), |below| Path::new("/").join(below));
            match format!("cgroup:{}", below.display()).parse() {
                Ok(AllowRule::Cgroup(path)) => {
                    settings.excluded.insert(path);
                }
                Ok(AllowRule::Network(..)) | Err(_) => wrong.push(format!(
                    "--exclude-cgroup {}: must be a path as in /proc/PID/cgroup, such as /system.slice/docker.service",
                    path.display()
                )),
            }
        }
        settings
    }

    /// Returns the interfaces on which remote clients arrive.
    pub(super) fn interfaces(&self) -> BTreeSet<String> {
        let names = self.interface.iter().map(|name| name.trim().to_owned());
        names.filter(|name| !name.is_empty()).collect()
    }

    fn service_ports(&self, wrong: &mut Vec<String>) -> Option<Vec<RangeInclusive<u16>>> {
        let mut ranges = Vec::new();
        let texts: Vec<_> = self.service_ports.iter().map(|text| text.trim()).filter(|text| !text.is_empty()).collect();
        for text in &texts {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
                (Ok(first), Ok(last)) if 0 < first && first <= last => ranges.push(first..=last),
                _ => wrong.push(format!(
                    "--service-ports (or SERVICE_PORTS) {text}: must be a port or FIRST-LAST, from 1 to 65535, such as 1024-65535"
                )),
            }
        }
        (!texts.is_empty()).then_some(ranges)
    }

    fn first_answer(&self, wrong: &mut Vec<String>) -> Duration {
        let text = self.first_answer.trim();
        // Without a unit, 5 would be 5 ms.
        let has_unit = text == "0" || text.ends_with(|last: char| last.is_ascii_alphabetic());
        match duration(text).filter(|time| has_unit && *time <= MAX_NEW) {
            Some(time) => time,
            None => {
                wrong.push(format!(
                    "--first-answer (or FIRST_ANSWER) {text}: must be a time with its unit of at most {} s, such as 5s or \
                     500ms, or 0 for no probes",
                    MAX_NEW.as_secs()
                ));
                Duration::ZERO
            }
        }
    }

    fn exposed(&self, wrong: &mut Vec<String>) -> Exposed {
        /// The longest alternative name of an interface (ALTIFNAMSIZ), without the final zero byte.
        const LONGEST: usize = 127;
        let names = self.interfaces();
        // The kernel's rule (dev_valid_name).
        let impossible = |name: &&String| {
            let odd = |c: char| c == '/' || c == ':' || c.is_whitespace();
            name.len() > LONGEST || name.contains(odd) || [".", ".."].contains(&name.as_str())
        };
        wrong.extend(names.iter().filter(impossible).map(|name| {
            format!("--interface {name}: invalid interface name; give a name that `ip link` shows, such as eth0")
        }));
        match (names.is_empty(), self.expose) {
            (true, true) => {
                wrong.push("--expose: needs an interface; name one with --interface".into());
                Exposed::None
            }
            (true, false) => Exposed::None,
            (false, false) => Exposed::Labelled,
            (false, true) => Exposed::All,
        }
    }
}

/// The values of `--local-listener`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
#[expect(clippy::enum_variant_names, reason = "clap makes the words of the command line from these names")]
pub(super) enum LocalListenerArg {
    /// A program that listens on a service port gets the connections to it, from wherever the kernel would deliver them.
    LocalWins,
    /// As local-wins, but only root may bind a service port of the host; other programs get EADDRINUSE. Implies
    /// --reserve-ports.
    RootWins,
    /// The service gets the connections in any case.
    ServiceWins,
}

/// The values of `--loopback`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum LoopbackArg {
    /// Only for programs in the host's own network namespace.
    Host,
    /// In every network namespace: a container's localhost resolves to services too.
    All,
    /// Never: only the host's addresses resolve to services.
    None,
}

impl From<LoopbackArg> for Loopback {
    fn from(arg: LoopbackArg) -> Self {
        match arg {
            LoopbackArg::Host => Self::HOST,
            LoopbackArg::All => Self::ALL,
            LoopbackArg::None => Self::NONE,
        }
    }
}

/// The flags of `run` for its checks of itself and of the host.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct GuardArgs {
    /// Seconds between self-tests, in which the agent connects to a service of its own; 0 for never.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, env = "SELF_TEST",
          value_parser = clap::value_parser!(u16).range(..=3600))]
    pub(super) self_test: u16,
    /// Keep service ports from sockets that ask for any port: adds them to net.ipv4.ip_local_reserved_ports.
    #[arg(long, env = "RESERVE_PORTS", value_parser = clap::builder::BoolishValueParser::new())]
    pub(super) reserve_ports: bool,
}
