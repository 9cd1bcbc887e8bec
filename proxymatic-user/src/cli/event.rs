//! `proxymatic event`: events as they happen.

use std::{
    io,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use proxymatic_common::AgentState;
use tokio::time::{interval, sleep};

use super::{Outcome, PinArgs};
use crate::{
    dataplane::kernel::{Events, Maps, Pins, monotonic},
    plan::MapState,
    surface::{self, Format, WatchEvent, watch_agent},
};

/// The verbs of `event`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Refusals, failures, ejections, readmissions, drains and applied plans, one a line, until interrupted. With an
    /// agent any number of watchers; without one a single watcher, which gets only the events of the hooks.
    Watch(Args),
}

/// The arguments of `event watch`.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    /// Exit after N events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// How often to check whether an agent has started.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The time without a heartbeat after which an agent counts as dead.
const STALE: Duration = Duration::from_secs(3);

pub(super) fn run(args: &Args, pins: &PinArgs, format: Format) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    let mut printer = Printer { left: args.count.unwrap_or(u64::MAX), format };
    runtime.block_on(watch(pins, &mut printer))?;
    Ok(Outcome::Ok)
}

/// The output, and the number of events still to print.
struct Printer {
    left: u64,
    format: Format,
}

impl Printer {
    /// Prints an event. Returns false if it was the last one wanted, or the reader closed the pipe.
    fn print(&mut self, event: &WatchEvent) -> io::Result<bool> {
        self.left = self.left.saturating_sub(1);
        Ok(surface::print_line(event, self.format)? && self.left > 0)
    }
}

async fn watch(args: &PinArgs, printer: &mut Printer) -> anyhow::Result<()> {
    let pins = Pins::at(&args.bpffs);
    let mut watched = false;
    loop {
        if let Some(mut agent) = watch_agent(&args.socket).await {
            watched = true;
            loop {
                let next = agent.next().await;
                let next = next.context("cannot decode the agent's events; it may be of another version")?;
                let Some(event) = next else { break };
                if !printer.print(&event).context("cannot print")? {
                    return Ok(());
                }
            }
            surface::print_notice("the agent has stopped; from here on only the events of the hooks");
        }
        if is_alive(&pins)? {
            // The agent was just killed, or it listens on another socket: its heartbeat decides.
            let heartbeat = heartbeat(&pins)?;
            sleep(STALE).await;
            anyhow::ensure!(
                watched || heartbeat == self::heartbeat(&pins)?,
                "an agent runs but does not answer on {}; name its socket with --socket",
                args.socket.display()
            );
            continue;
        }
        match pins.lock_events() {
            Ok(_lock) => {
                watched = true;
                if !read(args, &pins, printer).await? {
                    return Ok(());
                }
            }
            // Another watcher of the same agent took the lock first.
            Err(_) if watched => sleep(CHECK_INTERVAL).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Returns the time of the agent's last loop iteration: nanoseconds of the monotonic clock.
fn heartbeat(pins: &Pins) -> anyhow::Result<u64> {
    Ok(Maps::open(pins)?.config().heartbeat)
}

/// Returns whether an agent runs.
pub(super) fn is_alive(pins: &Pins) -> anyhow::Result<bool> {
    let config = Maps::open(pins)?.config();
    let stale = Duration::from_nanos(monotonic().saturating_sub(config.heartbeat)) > STALE;
    Ok(!stale && config.agent != AgentState::TERMINATING)
}

/// Reads the ring buffer itself until an agent starts, which must have it alone. Returns false if no more events are
/// wanted.
async fn read(args: &PinArgs, pins: &Pins, printer: &mut Printer) -> anyhow::Result<bool> {
    let maps = Maps::open(pins)?;
    let mut events = Events::open(pins)?;
    let mut names: Option<(Instant, MapState)> = None;
    let mut clock = interval(CHECK_INTERVAL);
    loop {
        let batch = tokio::select! {
            batch = events.next() => batch.context("cannot wait for events")?,
            _ = clock.tick() => {
                if watch_agent(&args.socket).await.is_some() {
                    return Ok(true);
                }
                continue;
            }
        };
        let now = Instant::now();
        // Without an agent little changes: an operator's drains at most.
        let tables = match names.take() {
            Some((at, tables)) if now - at < CHECK_INTERVAL => (at, tables),
            _ => (now, maps.tables()?),
        };
        for event in batch.iter().flat_map(|it| WatchEvent::of_hook(it, &tables.1)) {
            if !printer.print(&event).context("cannot print")? {
                return Ok(false);
            }
        }
        names = Some(tables);
    }
}
