//! `proxymatic hook`: the eBPF programs in the kernel, and their cost.

use std::{sync::mpsc, time::Duration};

use anyhow::Context as _;

use super::{Outcome, PinArgs};
use crate::{
    dataplane::kernel::{Maps, Pins, all_run, hook_rows, measure},
    surface::{self, Format},
};

/// The verbs of `hook`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Hooks: program, link, whether the kernel runs it, pin, runs, and the mean time of a run. Exit code 1 if a hook
    /// is missing or does not run.
    #[command(alias = "list")]
    Show {
        /// Measure for N seconds and show only that time. Without it, runs and times cover all the time in which the
        /// kernel measured (sysctl kernel.bpf_stats_enabled).
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=3600))]
        seconds: Option<u16>,
    },
}

impl Default for Verb {
    fn default() -> Self {
        Self::Show { seconds: None }
    }
}

pub(super) fn run(verb: Verb, pins: &PinArgs, format: Format) -> anyhow::Result<Outcome> {
    let Verb::Show { seconds } = verb;
    let pins = Pins::at(&pins.bpffs);
    // An error if nothing is pinned or the pins cannot be read: then no hook counts as missing.
    Maps::open(&pins)?;
    let rows = match seconds {
        Some(seconds) => measure(&pins, || wait(Duration::from_secs(seconds.into())))?,
        None => hook_rows(&pins)?,
    };
    let outcome = if all_run(&rows) { Outcome::Ok } else { Outcome::Problems };
    surface::print(&rows, format).context("cannot print")?;
    Ok(outcome)
}

/// Waits. The channel never receives anything, because this function holds the only sender.
fn wait(time: Duration) {
    let (_sender, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(time);
}
