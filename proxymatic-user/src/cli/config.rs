//! From what was typed to what is true: checked once, completely, and all that is wrong said in one go.

use std::path::PathBuf;

use proxymatic_common::{Head, Loopback};

use super::{PinArgs, run::Args, sources};
use crate::{dataplane::kernel::Settings, plan::Capacity, source};

/// What the agent runs with.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) sources: source::Config,
    pub(super) kernel: Settings,
    pub(super) socket: PathBuf,
    pub(super) verbose: bool,
}

/// Checks what was typed. Gives every complaint, each a sentence.
pub(super) fn check(args: &Args, pins: &PinArgs) -> Result<Config, Vec<String>> {
    let mut wrong = Vec::new();
    let services = bounded("--max-services", args.max_services, 1, 1 << 20, "services", &mut wrong);
    let backends = bounded("--max-backends", args.max_backends, 1, 1 << 24, "backends", &mut wrong);
    let slots = bounded("--max-slots", args.max_slots, 1, Head::MAX_BASE, "slots", &mut wrong);
    let sources = sources::check(&args.sources, &mut wrong);
    match sources {
        Some(sources) if wrong.is_empty() => Ok(Config {
            sources,
            kernel: Settings {
                bpffs: pins.bpffs.clone(),
                cgroup: args.cgroup.clone(),
                loopback: args.loopback.into(),
                capacity: Capacity { services, backends, slots, ..Capacity::default() },
            },
            socket: pins.socket.clone(),
            verbose: args.verbose,
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
