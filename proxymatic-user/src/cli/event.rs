//! `proxymatic event`: what happens, as it happens.

use std::{
    io,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use proxymatic_common::AgentState;
use tokio::time::{interval, sleep};

use super::{Health, PinArgs};
use crate::{
    dataplane::kernel::{Events, Maps, Pins, monotonic},
    plan::MapState,
    surface::{self, Format, WatchEvent, watch_agent},
};

/// What can be done with events.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Refusals, failures, ejections, re-admissions, drains and applied plans, one a line, until it is ended. With an
    /// agent any number may watch, without one a single watcher, and then only what the hooks tell.
    Watch(Args),
}

/// What `event watch` takes.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    /// End after so many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// How often to look whether an agent has come.
const LOOK: Duration = Duration::from_secs(1);
/// After how long without a beat an agent is taken for dead.
const STALE: Duration = Duration::from_secs(3);

pub(super) fn run(args: &Args, pins: &PinArgs, format: Format) -> anyhow::Result<Health> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    let mut shown = Shown { left: args.count.unwrap_or(u64::MAX), format };
    runtime.block_on(watch(pins, &mut shown))?;
    Ok(Health::Well)
}

/// What is shown, and how much of it still may be.
struct Shown {
    left: u64,
    format: Format,
}

impl Shown {
    /// False where that was the last: as many as were asked for, or nobody reads on.
    fn show(&mut self, happening: &WatchEvent) -> io::Result<bool> {
        self.left = self.left.saturating_sub(1);
        Ok(surface::print_line(happening, self.format)? && self.left > 0)
    }
}

async fn watch(args: &PinArgs, shown: &mut Shown) -> anyhow::Result<()> {
    let pins = Pins::at(&args.bpffs);
    let mut seen_any = false;
    loop {
        if let Some(mut agent) = watch_agent(&args.socket).await {
            seen_any = true;
            loop {
                let next = agent.next().await;
                let next = next.context("the agent tells no events that can be read; is it of another version?")?;
                let Some(happening) = next else { break };
                if !shown.show(&happening).context("cannot print")? {
                    return Ok(());
                }
            }
            surface::print_notice("the agent has left; from here on only what the hooks tell");
        }
        if is_alive(&pins)? {
            // Just killed, or it listens elsewhere: the beat of its heart tells.
            let beat = beat(&pins)?;
            sleep(STALE).await;
            anyhow::ensure!(
                seen_any || beat == self::beat(&pins)?,
                "an agent runs, but does not answer on {}; name its socket with --socket",
                args.socket.display()
            );
            continue;
        }
        match pins.lock_events() {
            Ok(_lock) => {
                seen_any = true;
                if !read(args, &pins, shown).await? {
                    return Ok(());
                }
            }
            // Others watched the same agent, and one of them was faster.
            Err(_) if seen_any => sleep(LOOK).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// When an agent last went round its loop: nanoseconds of the monotonic clock.
fn beat(pins: &Pins) -> anyhow::Result<u64> {
    Ok(Maps::open(pins)?.config().heartbeat)
}

/// Returns whether an agent runs.
pub(super) fn is_alive(pins: &Pins) -> anyhow::Result<bool> {
    let config = Maps::open(pins)?.config();
    let stale = Duration::from_nanos(monotonic().saturating_sub(config.heartbeat)) > STALE;
    Ok(!stale && config.agent != AgentState::TERMINATING)
}

/// Reads the ring itself until an agent is there, who has to have it for himself. False where nothing more is wanted.
async fn read(args: &PinArgs, pins: &Pins, shown: &mut Shown) -> anyhow::Result<bool> {
    let maps = Maps::open(pins)?;
    let mut events = Events::open(pins)?;
    let mut names: Option<(Instant, MapState)> = None;
    let mut clock = interval(LOOK);
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
        // Without an agent little changes: who drains, at most.
        let tables = match names.take() {
            Some((at, tables)) if now - at < LOOK => (at, tables),
            _ => (now, maps.tables()?),
        };
        for happening in batch.iter().flat_map(|event| WatchEvent::of_hook(event, &tables.1)) {
            if !shown.show(&happening).context("cannot print")? {
                return Ok(false);
            }
        }
        names = Some(tables);
    }
}
