//! Validates the arguments into a `Config` and reports all errors at once.

use std::{ffi::OsString, path::PathBuf};

use aya_log::Level;
use proxymatic_common::{
    HookFlags, SlotRange,
    maps::{Backends, MapDef as _, Services, Slots},
};

use super::{
    PinArgs,
    args::{GuardArgs, LocalListenerArg, LoopbackArg, SettingsArgs, bounded},
    endpoint::{Endpoint, EndpointArgs, LogFormat},
    legacy_flags::LegacyArgs,
    remote::RemoteArgs,
    sources::{self, SourceArgs},
    state,
};
use crate::{agent::GlobalSettings, dataplane::kernel::Settings, plan::Capacity, source::Sources, state::StateFile};

/// The flags of `run`. Names, variables and defaults are those of `meltwater/proxymatic` where it had them.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) sources: SourceArgs,
    #[command(flatten)]
    pub(super) endpoint: EndpointArgs,
    /// Log every map write too.
    #[arg(long, short = 'v', env = "VERBOSE", value_parser = clap::builder::BoolishValueParser::new())]
    pub(super) verbose: bool,
    /// The folder of the cgroup whose sockets are served [default: the root of the host's cgroup2 tree].
    #[arg(long, value_name = "DIR", env = "CGROUP")]
    pub(super) cgroup: Option<PathBuf>,
    /// The network namespaces in which localhost resolves to services.
    #[arg(long, value_enum, default_value = "host", env = "LOOPBACK")]
    pub(super) loopback: LoopbackArg,
    #[command(flatten)]
    pub(super) settings: SettingsArgs,
    /// Whether a program that listens on a service port takes precedence over the service.
    #[arg(long, value_enum, default_value = "local-wins", env = "LOCAL_LISTENER")]
    pub(super) local_listener: LocalListenerArg,
    /// Hooks leave sockets with this SO_MARK alone; decimal or 0x...; 0 for none.
    #[arg(long, value_name = "MARK", default_value = "0", value_parser = mark, env = "BYPASS_MARK")]
    pub(super) bypass_mark: u32,
    /// Emit an event for one in N connections; 0 for none. Failures and refusals always have events.
    #[arg(long, value_name = "N", default_value_t = 0, env = "SAMPLE")]
    pub(super) sample: u32,
    /// Log each refused connection in the hooks, and with --verbose every verdict. This loads other programs, which are
    /// slower. For debugging only.
    #[arg(long, env = "BPF_LOG")]
    pub(super) bpf_log: bool,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
    #[command(flatten)]
    pub(super) guard: GuardArgs,
    /// The file for the last answers of the sources, for a boot without them; empty for no file.
    #[arg(long, value_name = "PATH", default_value = "/var/lib/proxymatic/state.json", env = "STATE_FILE")]
    pub(super) state_file: OsString,
    /// The number of services that the maps can hold. Pinned maps keep their size.
    #[arg(long, value_name = "N", default_value_t = Services::MAX)]
    pub(super) max_services: u32,
    /// The number of backends that the maps can hold.
    #[arg(long, value_name = "N", default_value_t = Backends::MAX)]
    pub(super) max_backends: u32,
    /// The number of slots that the maps can hold: one for each backend if weights are equal.
    #[arg(long, value_name = "N", default_value_t = Slots::MAX)]
    pub(super) max_slots: u32,
    #[command(flatten)]
    pub(super) legacy: LegacyArgs,
}

/// Parses a mark. The tools that set marks write them in hexadecimal.
fn mark(text: &str) -> Result<u32, std::num::ParseIntError> {
    text.strip_prefix("0x").map_or_else(|| text.parse(), |digits| u32::from_str_radix(digits, 16))
}

/// The validated arguments of `run`.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) sources: Sources,
    pub(super) kernel: Settings,
    pub(super) settings: GlobalSettings,
    pub(super) socket: PathBuf,
    /// The path of the file with the reserved ports.
    pub(super) reserved: PathBuf,
    pub(super) guard: GuardArgs,
    /// `None` for no state file.
    pub(super) state: Option<StateFile>,
    pub(super) verbose: bool,
    pub(super) endpoint: Endpoint,
    pub(super) log_format: LogFormat,
}

/// Checks the arguments. Returns every error, each as one sentence.
pub(super) fn check(args: &Args, pins: &PinArgs) -> Result<Config, Vec<String>> {
    let mut wrong = Vec::new();
    let services = bounded("--max-services", args.max_services, 1, 1 << 20, "services", &mut wrong);
    let backends = bounded("--max-backends", args.max_backends, 1, 1 << 24, "backends", &mut wrong);
    let slots = bounded("--max-slots", args.max_slots, 1, SlotRange::MAX_BASE, "slots", &mut wrong);
    let sources = sources::check(&args.sources, &mut wrong);
    let mut settings = args.settings.check(&mut wrong);
    let remote = args.remote.check(&args.settings, &mut wrong);
    let state = state::check(&args.state_file, &mut wrong);
    let endpoint = args.endpoint.check(&mut wrong);
    settings.status_port = endpoint.address.map(|address| address.port());
    let listeners = match args.local_listener {
        LocalListenerArg::LocalWins => HookFlags::LISTENERS,
        LocalListenerArg::RootWins => HookFlags::LISTENERS.with(HookFlags::ROOT_WINS),
        LocalListenerArg::ServiceWins => HookFlags::default(),
    };
    let mut guard = args.guard.clone();
    // Else a program that asks the kernel for any port could get a service port, and EADDRINUSE with it.
    guard.reserve_ports |= listeners.has(HookFlags::ROOT_WINS);
    let excluded = if settings.excluded.is_empty() { HookFlags::default() } else { HookFlags::EXCLUDED };
    match sources {
        Some(sources) if wrong.is_empty() => Ok(Config {
            state: state.map(|path| StateFile::new(path, sources.locations())),
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
            settings,
            socket: pins.socket.clone(),
            reserved: pins.reserved(),
            guard,
            verbose: args.verbose,
            endpoint,
            log_format: args.endpoint.log_format,
        }),
        _ => Err(wrong),
    }
}

#[cfg(test)]
mod tests {

    use std::time::Duration;

    use clap::Parser;
    use proxymatic_common::Loopback;

    use super::*;
    use crate::{plan::Exposed, source::SourceId};

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
    fn defaults_are_those_of_meltwater_proxymatic() {
        let config = checked("--marathon http://marathon.example:8080").unwrap();
        assert_eq!(config.kernel.loopback, Loopback::HOST);
        assert_eq!((config.settings.max_connections, config.settings.excluded.len()), (8192, 0));
        assert_eq!(config.kernel.hook_flags, HookFlags::LISTENERS);
        assert_eq!((config.kernel.bypass_mark, config.kernel.event_sample_rate), (0, 0));
    }

    #[test]
    fn hook_flags_follow_the_arguments() {
        let line = "--file x.toml --local-listener service-wins --exclude-cgroup /a --exclude-cgroup /b/c/ \
                    --bypass-mark 0x1d --sample 100 --max-connections 0";
        let config = checked(line).unwrap();
        assert_eq!(config.kernel.hook_flags, HookFlags::EXCLUDED);
        assert_eq!((config.kernel.bypass_mark, config.kernel.event_sample_rate), (29, 100));
        assert_eq!(
            config.settings,
            GlobalSettings {
                max_connections: 0,
                excluded: ["/a".into(), "/b/c".into()].into(),
                status_port: Some(9090),
                first_answer: Duration::from_secs(5),
                ..GlobalSettings::default()
            }
        );
        let wrong = checked("--file x.toml --exclude-cgroup ../a").unwrap_err();
        assert!(wrong[0].starts_with("--exclude-cgroup ../a: must be a path as in /proc/PID/cgroup"), "{wrong:?}");
    }

    #[test]
    fn first_answer_needs_a_unit_and_is_a_minute_at_most() {
        let first_answer =
            |text: &str| checked(&format!("--file x.toml --first-answer {text}")).map(|it| it.settings.first_answer);
        for (text, millis) in [("5s", 5_000), ("500ms", 500), ("1m", 60_000), ("0", 0), ("0s", 0)] {
            assert_eq!(first_answer(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["5", "61s", "s", "1.5s", "never"] {
            let wrong = first_answer(text).unwrap_err();
            let start =
                format!("--first-answer (or FIRST_ANSWER) {text}: must be a time with its unit of at most 60 s");
            assert!(wrong.len() == 1 && wrong[0].starts_with(&start), "{wrong:?}");
        }
    }

    #[test]
    fn root_wins_reserves_the_service_ports() {
        let config = checked("--file x.toml --local-listener root-wins").unwrap();
        assert_eq!(config.kernel.hook_flags, HookFlags::LISTENERS.with(HookFlags::ROOT_WINS));
        assert!(config.guard.reserve_ports);
        assert!(!checked("--file x.toml").unwrap().guard.reserve_ports);
    }

    #[test]
    fn remote_clients_need_an_interface() {
        let config = checked("--file x.toml").unwrap();
        assert!(!config.kernel.remote.is_wanted());
        assert_eq!(config.settings.exposed, Exposed::None);
        let config = checked("--file x.toml --interface eth0,eth1.7 --interface eth0").unwrap();
        let remote = &config.kernel.remote;
        assert_eq!(remote.names, ["eth0".into(), "eth1.7".into()].into());
        assert_eq!((remote.xdp, &remote.snat_ports, remote.connections), (false, &(61_000..=64_999), 65_536));
        assert_eq!(config.settings.exposed, Exposed::Labelled);
        let line = "--file x.toml --interface eth0 --expose --xdp native --snat-ports 50000-50999";
        let config = checked(line).unwrap();
        assert_eq!((config.kernel.remote.xdp, &config.kernel.remote.snat_ports), (true, &(50_000..=50_999)));
        assert_eq!(config.settings.exposed, Exposed::All);
    }

    #[test]
    fn invalid_flags_for_remote_clients_are_errors() {
        for (line, start) in [
            ("--expose", "--expose: needs an interface; name one with --interface"),
            ("--xdp native", "--xdp native: needs an interface; name one with --interface"),
            ("--interface a/b", "--interface a/b: invalid interface name"),
            ("--interface eth0 --max-remote-connections 0", "--max-remote-connections 0: must be 1 to"),
        ] {
            let wrong = checked(&format!("--file x.toml {line}")).unwrap_err();
            assert!(wrong.len() == 1 && wrong[0].starts_with(start), "{line}: {wrong:?}");
        }
        for ports in ["61000", "0-99", "500-2000", "61000-61010", "62000-61000", "61000-70000"] {
            let line = format!("run --file x.toml --snat-ports {ports}");
            let error = Line::try_parse_from(line.split(' ')).err().unwrap().to_string();
            assert!(error.contains("61000-64999"), "{ports}: {error}");
        }
    }

    #[test]
    fn state_file_has_a_default_and_may_be_empty() {
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
    fn all_errors_are_reported_at_once() {
        let wrong = checked("--refresh-interval 0 --group-size 0 --max-slots 0 --marathon ftp://x").unwrap_err();
        for part in ["--refresh-interval 0", "--group-size 0", "--max-slots 0", "ftp"] {
            assert!(wrong.iter().any(|line| line.contains(part)), "{part} in {wrong:?}");
        }
        assert_eq!(wrong.len(), 4, "{wrong:?}");
    }

    #[test]
    fn one_source_of_any_kind_is_needed() {
        let wrong = checked("").unwrap_err();
        assert_eq!(wrong.len(), 1);
        assert!(wrong[0].starts_with("no source of services: name a Marathon with --marathon URL"), "{wrong:?}");
        let ids = |line| checked(line).unwrap().sources.ids();
        assert_eq!(ids("--file /etc/proxymatic/services.toml"), [SourceId::File]);
        assert_eq!(ids("--registrator etcd://h:4001/services"), [SourceId::Registrator]);
    }

    #[test]
    fn invalid_source_is_an_error_with_flag_and_remedy() {
        for (line, start) in [
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
                "--marathon http://h --vip-networks 11.0.0/8",
                "--vip-networks (or VIP_NETWORKS) 11.0.0/8: must be a network such as 11.0.0.0/8",
            ),
            (
                "--marathon http://h --service-ports 80-79",
                "--service-ports (or SERVICE_PORTS) 80-79: must be a port or FIRST-LAST, from 1 to 65535",
            ),
            (
                "--marathon http://h --owner web=/shop/web",
                "--owner (or PORT_OWNER) web=/shop/web: must be PORT=APP, such as 8080=/shop/web",
            ),
            ("--marathon http://h --owner 0=/web", "--owner (or PORT_OWNER) 0=/web: must be PORT=APP"),
            ("--marathon http://h --owner 80=web", "--owner (or PORT_OWNER) 80=web: must be PORT=APP"),
            (
                "--marathon http://h --owner 80=/a --owner 80=/b",
                "--owner (or PORT_OWNER) 80=/b: /a owns port 80 already; name one app for each port",
            ),
            ("--marathon http://h --max-ports-per-app 0", "--max-ports-per-app 0: must be 1 to 65535 ports"),
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
            assert!(wrong.len() == 1 && wrong[0].starts_with(start), "{line}: {wrong:?}");
        }
    }
}
