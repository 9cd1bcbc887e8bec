//! From what was typed to what is true: checked once, completely, and all that is wrong said in one go.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use proxymatic_common::{Head, Loopback};

use super::{PinArgs, run::Args};
use crate::{dataplane::kernel::Settings, plan::Capacity, source::marathon};

/// What the agent runs with.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) marathon: marathon::Config,
    pub(super) kernel: Settings,
    pub(super) socket: PathBuf,
    pub(super) verbose: bool,
}

/// Checks what was typed. Gives every complaint, each a sentence.
pub(super) fn check(args: &Args, pins: &PinArgs) -> Result<Config, Vec<String>> {
    let mut wrong = Vec::new();
    let refresh = bounded("--refresh-interval", args.refresh_interval, 1, 86_400, "seconds", &mut wrong);
    let services = bounded("--max-services", args.max_services, 1, 1 << 20, "services", &mut wrong);
    let backends = bounded("--max-backends", args.max_backends, 1, 1 << 24, "backends", &mut wrong);
    let slots = bounded("--max-slots", args.max_slots, 1, Head::MAX_BASE, "slots", &mut wrong);
    let group = NonZeroU32::new(args.group_size).unwrap_or_else(|| {
        wrong.push("--group-size 0: there is at least this one agent; give the number of agents, 1 or more".into());
        NonZeroU32::MIN
    });
    let urls: Vec<&str> = args.marathon.iter().map(String::as_str).filter(|url| !url.trim().is_empty()).collect();
    if urls.is_empty() {
        wrong.push("no source of services: name a Marathon with --marathon URL (or MARATHON_URL)".into());
    }
    let marathon = match marathon::Config::new(&urls, Duration::from_secs(refresh.into()), group) {
        Ok(config) => Some(config),
        Err(reasons) => {
            // Without a URL the reason is given above.
            wrong.extend(reasons.into_iter().filter(|_| !urls.is_empty()));
            None
        }
    };
    match marathon {
        Some(marathon) if wrong.is_empty() => Ok(Config {
            marathon,
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

fn bounded(flag: &str, value: u32, least: u32, most: u32, unit: &str, wrong: &mut Vec<String>) -> u32 {
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
    use clap::Parser;

    use super::*;

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
        assert_eq!(config.marathon.timing.refresh, Duration::from_secs(60));
        assert_eq!(config.marathon.group_size.get(), 1);
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
    fn a_source_is_needed() {
        let wrong = checked("").unwrap_err();
        assert_eq!(wrong, ["no source of services: name a Marathon with --marathon URL (or MARATHON_URL)"]);
    }
}
