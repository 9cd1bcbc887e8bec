//! From what was typed to what is true: checked once, completely, and all that is wrong said in one go.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use aya_log::Level;
use proxymatic_common::{HookFlags, Loopback, SlotRange};

use super::{
    PinArgs,
    endpoint::{Endpoint, LogFormat},
    hardening::GuardArgs,
    run::Args,
    sources, state,
};
use crate::{
    agent::GlobalSettings,
    dataplane::kernel::{Settings, cgroup_root},
    model::AllowRule,
    plan::{Capacity, Exposed},
    source,
    state::StateFile,
};

/// What the agent runs with.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) sources: source::Config,
    pub(super) kernel: Settings,
    pub(super) wishes: GlobalSettings,
    pub(super) socket: PathBuf,
    /// Where it is kept which ports are reserved.
    pub(super) reserved: PathBuf,
    pub(super) guard: GuardArgs,
    /// `None` where nothing is kept.
    pub(super) state: Option<StateFile>,
    pub(super) verbose: bool,
    pub(super) endpoint: Endpoint,
    pub(super) log_format: LogFormat,
}

/// Checks what was typed. Gives every warning, each a sentence.
pub(super) fn check(args: &Args, pins: &PinArgs) -> Result<Config, Vec<String>> {
    let mut wrong = Vec::new();
    let services = bounded("--max-services", args.max_services, 1, 1 << 20, "services", &mut wrong);
    let backends = bounded("--max-backends", args.max_backends, 1, 1 << 24, "backends", &mut wrong);
    let slots = bounded("--max-slots", args.max_slots, 1, SlotRange::MAX_BASE, "slots", &mut wrong);
    let sources = sources::check(&args.sources, &mut wrong);
    let wishes = args.wishes.check(&mut wrong);
    let remote = args.remote.check(&args.wishes, &mut wrong);
    let state = state::check(&args.state_file, &mut wrong);
    let endpoint = args.endpoint.check(&mut wrong);
    let listeners = match args.local_listener {
        LocalListenerArg::LocalWins => HookFlags::LISTENERS,
        LocalListenerArg::ServiceWins => HookFlags::default(),
    };
    let excluded = if wishes.excluded.is_empty() { HookFlags::default() } else { HookFlags::EXCLUDED };
    match sources {
        Some(sources) if wrong.is_empty() => Ok(Config {
            state: state.map(|path| StateFile::new(path, sources.identities())),
            sources,
            kernel: Settings {
                bpffs: pins.bpffs.clone(),
                cgroup: args.cgroup.clone(),
                loopback: args.loopback.into(),
                hook_flags: listeners.with(excluded),
                bypass_mark: args.bypass_mark,
                event_sample_rate: args.sample,
                remote,
                log: args.bpf_log.then_some(if args.verbose { Level::Debug } else { Level::Info }),
                capacity: Capacity { services, backends, slots, ..Capacity::default() },
            },
            wishes,
            socket: pins.socket.clone(),
            reserved: pins.reserved(),
            guard: args.guard.clone(),
            verbose: args.verbose,
            endpoint,
            log_format: args.endpoint.log_format,
        }),
        _ => Err(wrong),
    }
}

pub(super) fn bounded(flag: &str, value: u32, least: u32, most: u32, unit: &str, wrong: &mut Vec<String>) -> u32 {
    if !(least..=most).contains(&value) {
        wrong.push(format!("{flag} {value}: must be {least} to {most} {unit}"));
    }
    value.clamp(least, most)
}

/// What holds for all services: `run` writes it, and `plan show` must know it to tell what would change.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SettingsArgs {
    /// The most connections from this host to one service at once; 0 for no bound.
    #[arg(long, value_name = "N", default_value_t = 8192, env = "MAX_CONNECTIONS")]
    max_connections: u32,
    /// A cgroup whose programs are left alone, with all below it: a path as in /proc/PID/cgroup. May be given repeatedly.
    #[arg(long, value_name = "PATH", env = "EXCLUDE_CGROUP", value_delimiter = ',')]
    exclude_cgroup: Vec<PathBuf>,
    /// A network interface by which clients on other machines may come, by name. May be given repeatedly. Without it only
    /// programs on this host are served.
    #[arg(long, value_name = "NAME", env = "INTERFACE", value_delimiter = ',')]
    interface: Vec<String>,
    /// Serve clients on other machines with all services, not only with those whose label `expose` says so.
    #[arg(long, env = "EXPOSE", value_parser = clap::builder::BoolishValueParser::new())]
    expose: bool,
}

impl SettingsArgs {
    /// Checks what was typed. A cgroup need not be there yet.
    pub(super) fn check(&self, wrong: &mut Vec<String>) -> GlobalSettings {
        // A folder of the mounted tree is taken for the cgroup it is.
        let root = cgroup_root().unwrap_or_default();
        let exposed = self.exposed(wrong);
        let mut wishes = GlobalSettings { max_connections: self.max_connections, exposed, ..GlobalSettings::default() };
        for path in &self.exclude_cgroup {
            let below = path.strip_prefix(&root).map_or_else(|_| path.clone(), |below| Path::new("/").join(below));
            match format!("cgroup:{}", below.display()).parse() {
                Ok(AllowRule::Cgroup(path)) => {
                    wishes.excluded.insert(path);
                }
                Ok(AllowRule::Network(..)) | Err(_) => wrong.push(format!(
                    "--exclude-cgroup {}: must be a path as in /proc/PID/cgroup, such as /system.slice/docker.service",
                    path.display()
                )),
            }
        }
        wishes
    }

    /// The interfaces by which clients on other machines may come.
    pub(super) fn interfaces(&self) -> BTreeSet<String> {
        let names = self.interface.iter().map(|name| name.trim().to_owned());
        names.filter(|name| !name.is_empty()).collect()
    }

    fn exposed(&self, wrong: &mut Vec<String>) -> Exposed {
        /// The longest other name that an interface can have (ALTIFNAMSIZ), without the zero at its end.
        const LONGEST: usize = 127;
        let names = self.interfaces();
        // As the kernel has it (dev_valid_name).
        let impossible = |name: &&String| {
            let odd = |c: char| c == '/' || c == ':' || c.is_whitespace();
            name.len() > LONGEST || name.contains(odd) || [".", ".."].contains(&name.as_str())
        };
        wrong.extend(names.iter().filter(impossible).map(|name| {
            format!("--interface {name}: no interface can be called so; give a name that `ip link` shows, such as eth0")
        }));
        match (names.is_empty(), self.expose) {
            (true, true) => {
                wrong.push("--expose: by which interface do clients come? name it with --interface".into());
                Exposed::None
            }
            (true, false) => Exposed::None,
            (false, false) => Exposed::Labelled,
            (false, true) => Exposed::All,
        }
    }
}

/// `--local-listener`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum LocalListenerArg {
    /// A program that listens on a service port gets the connections of its network namespace to it.
    LocalWins,
    /// Services get them all the same.
    ServiceWins,
}

/// `--loopback`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum LoopbackArg {
    /// Only from programs in the host's own network namespace.
    Host,
    /// From every namespace: a container's localhost leads to services too.
    All,
    /// Never: only the host's addresses lead to services.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;
    use crate::source::SourceId;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: Args,
        #[command(flatten)]
        pins: PinArgs,
    }

    fn checked(line: &str) -> Result<Config, Vec<String>> {
        let line = Line::parse_from(std::iter::once("run").chain(line.split_whitespace()));
        check(&line.run, &line.pins)
    }

    #[test]
    fn defaults_are_those_of_the_container_it_replaces() {
        let config = checked("--marathon http://marathon.example:8080").unwrap();
        let marathon = config.sources.marathon.unwrap();
        assert_eq!(marathon.timing.refresh, Duration::from_secs(60));
        assert_eq!(marathon.group_size.get(), 1);
        assert!(!marathon.expose_host);
        let exposed = checked("--marathon http://marathon.example:8080 --expose-host").unwrap();
        assert!(exposed.sources.marathon.unwrap().expose_host);
        assert_eq!(config.kernel.loopback, Loopback::HOST);
        assert_eq!((config.wishes.max_connections, config.wishes.excluded.len()), (8192, 0));
        assert_eq!(config.kernel.hook_flags, HookFlags::LISTENERS);
        assert_eq!((config.kernel.bypass_mark, config.kernel.event_sample_rate), (0, 0));
    }

    #[test]
    fn what_the_hooks_are_to_look_at_follows_the_flags() {
        let line = "--file x.toml --local-listener service-wins --exclude-cgroup /a --exclude-cgroup /b/c/ \
                    --bypass-mark 0x1d --sample 100 --max-connections 0";
        let config = checked(line).unwrap();
        assert_eq!(config.kernel.hook_flags, HookFlags::EXCLUDED);
        assert_eq!((config.kernel.bypass_mark, config.kernel.event_sample_rate), (29, 100));
        assert_eq!(
            config.wishes,
            GlobalSettings {
                max_connections: 0,
                excluded: ["/a".into(), "/b/c".into()].into(),
                ..GlobalSettings::default()
            }
        );
        let wrong = checked("--file x.toml --exclude-cgroup ../a").unwrap_err();
        assert!(wrong[0].starts_with("--exclude-cgroup ../a: must be a path as in /proc/PID/cgroup"), "{wrong:?}");
    }

    #[test]
    fn without_an_interface_no_client_on_another_machine_is_served() {
        let config = checked("--file x.toml").unwrap();
        assert!(!config.kernel.remote.is_wanted());
        assert_eq!(config.wishes.exposed, Exposed::None);
        let config = checked("--file x.toml --interface eth0,eth1.7 --interface eth0").unwrap();
        let remote = &config.kernel.remote;
        assert_eq!(remote.names, ["eth0".into(), "eth1.7".into()].into());
        assert_eq!((remote.xdp, &remote.snat_ports, remote.connections), (false, &(61_000..=64_999), 65_536));
        assert_eq!(config.wishes.exposed, Exposed::Labelled);
        let line = "--file x.toml --interface eth0 --expose --xdp native --snat-ports 50000-50999";
        let config = checked(line).unwrap();
        assert_eq!((config.kernel.remote.xdp, &config.kernel.remote.snat_ports), (true, &(50_000..=50_999)));
        assert_eq!(config.wishes.exposed, Exposed::All);
    }

    #[test]
    fn what_makes_no_sense_for_clients_on_other_machines_is_said() {
        for (line, said) in [
            ("--expose", "--expose: by which interface do clients come? name it with --interface"),
            ("--xdp native", "--xdp native: on which interface? name it with --interface"),
            ("--interface a/b", "--interface a/b: no interface can be called so"),
            ("--interface eth0 --max-remote-connections 0", "--max-remote-connections 0: must be 1 to"),
        ] {
            let wrong = checked(&format!("--file x.toml {line}")).unwrap_err();
            assert!(wrong.len() == 1 && wrong[0].starts_with(said), "{line}: {wrong:?}");
        }
        for ports in ["61000", "0-99", "500-2000", "61000-61010", "62000-61000", "61000-70000"] {
            let line = format!("run --file x.toml --snat-ports {ports}");
            let error = Line::try_parse_from(line.split(' ')).err().unwrap().to_string();
            assert!(error.contains("61000-64999"), "{ports}: {error}");
        }
    }

    #[test]
    fn the_last_answers_are_kept_in_a_file_or_nowhere() {
        let path = |line: &str| {
            let state = checked(&format!("--file x.toml {line}")).unwrap().state;
            state.map(|file| file.path().display().to_string())
        };
        assert_eq!(path("").as_deref(), Some("/var/lib/proxymatic/state.json"));
        assert_eq!(path("--state-file here.json").as_deref(), Some("here.json"));
        assert_eq!(path("--state-file="), None);
        let wrong = checked("--file x.toml --state-file /").unwrap_err();
        assert!(
            wrong.len() == 1 && wrong[0].starts_with("--state-file (or STATE_FILE) /: must name a file"),
            "{wrong:?}"
        );
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let wrong = checked("--refresh-interval 0 --group-size 0 --max-slots 0 --marathon ftp://x").unwrap_err();
        for part in ["--refresh-interval 0", "--group-size 0", "--max-slots 0", "ftp"] {
            assert!(wrong.iter().any(|line| line.contains(part)), "{part} in {wrong:?}");
        }
        assert_eq!(wrong.len(), 4, "{wrong:?}");
    }

    #[test]
    fn one_source_is_needed_and_any_will_do() {
        let wrong = checked("").unwrap_err();
        assert_eq!(wrong.len(), 1);
        assert!(wrong[0].starts_with("no source of services: name a Marathon with --marathon URL"), "{wrong:?}");
        let ids = |line| checked(line).unwrap().sources.ids();
        assert_eq!(ids("--file /etc/proxymatic/services.toml"), [SourceId::File]);
        assert_eq!(ids("--registrator etcd://h:4001/services"), [SourceId::Registrator]);
    }

    #[test]
    fn what_a_source_cannot_use_is_said_with_flag_variable_reason_and_remedy() {
        for (line, said) in [
            ("--file services.yaml", "--file (or FILE) services.yaml: its name must end in .toml or .json"),
            ("--registrator etcd://", "--registrator (or REGISTRATOR_URL) etcd://: names no host; write it as etcd://"),
            (
                "--marathon marathon:8080",
                "--marathon (or MARATHON_URL) marathon:8080: must start with http:// or https://; try http://marathon:8080",
            ),
            (
                "--marathon http://",
                "--marathon (or MARATHON_URL) http://: is not a URL: empty host; write one such as http://marathon.example:8080",
            ),
            (
                "--marathon http://h --marathon-credentials-file /absent",
                "--marathon-credentials-file /absent: cannot be read: No such file",
            ),
            (
                "--registrator https://h/s --registrator-ca-cert /absent",
                "--registrator-ca-cert /absent: cannot be read: No such file",
            ),
        ] {
            let wrong = checked(line).unwrap_err();
            assert!(wrong.len() == 1 && wrong[0].starts_with(said), "{line}: {wrong:?}");
        }
    }
}
