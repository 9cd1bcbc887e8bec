//! `proxymatic plan`: the writes that an agent would make, without making them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use proxymatic_common::Backend;
use tokio::sync::mpsc;

use super::{
    Outcome, PinArgs,
    args::SettingsArgs,
    endpoint::ListenArgs,
    event::is_alive,
    sources::{self, SourceArgs},
    usage,
};
use crate::{
    addresses,
    agent::{
        Before, FirstAnswers, Inputs, SelfTestService, SourceInput, adopted, desired_state, drained_in, is_full,
        parked_in,
    },
    dataplane::{
        Error,
        kernel::{Maps, Pins, cgroup_root, find_cgroup},
    },
    model::Snapshot,
    plan::{MapState, plan},
    source::{Report, SourceId, Sources},
    surface::{self, Format, Planned},
};

/// The verbs of `plan`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Show the writes that an agent would make, and warnings. Changes nothing, needs no root. Exit code 1 if there are warnings.
    #[command(alias = "list")]
    Show(Box<Args>),
}

/// What `plan show` takes: the sources of `run`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) sources: SourceArgs,
    #[command(flatten)]
    pub(super) settings: SettingsArgs,
    #[command(flatten)]
    listen: ListenArgs,
    /// How many seconds to wait for the answers of all sources.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=3600))]
    wait: u16,
}

/// How long a source that has reported a failure may go on trying.
const RETRY_TIME: Duration = Duration::from_secs(3);

pub(super) fn run(args: &Args, pins: &PinArgs, format: Format) -> anyhow::Result<Outcome> {
    let mut wrong = Vec::new();
    let config = sources::check(&args.sources, &mut wrong);
    let mut settings = args.settings.check(&mut wrong);
    settings.status_port = args.listen.check(&mut wrong).map(|address| address.port());
    let config = config.filter(|_| wrong.is_empty());
    let mut config = config.ok_or_else(|| usage::join_errors(wrong))?;
    let Pinned { map_state, drained, parked, description } = pinned(&pins.bpffs)?;
    config.set_served(|source| adopted(&map_state, source));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    let addresses = runtime.block_on(addresses::read())?;
    let snapshots = runtime.block_on(read_once(config, Duration::from_secs(args.wait.into())))?;
    let mut first_answers = FirstAnswers::new(settings.first_answer, 0);
    let now = Instant::now();
    for (source, snapshot) in &snapshots {
        first_answers.listed(*source, snapshot, Before::Adopted(&map_state, None), now);
    }
    let services = snapshots.values().flat_map(|snapshot| snapshot.services.values());
    let root = cgroup_root().ok();
    let cgroup = |path: &str| find_cgroup(root.as_deref()?, path);
    let (desired, mut warnings) = desired_state(Inputs {
        sources: snapshots.iter().map(|(source, snapshot)| (*source, SourceInput::Answered(snapshot))).collect(),
        addresses: &addresses,
        map_state: &map_state,
        settings: &settings,
        cgroups: settings.cgroups(services.map(|service| &service.settings), cgroup),
        // Only the agent knows whether it has a self-test.
        self_test: SelfTestService::FromMaps,
        drained,
        parked,
        first_answers: Some(&first_answers),
    });
    let planned = plan(&desired, &map_state);
    warnings.extend(planned.warnings);
    warnings.extend(snapshots.values().flat_map(|snapshot| snapshot.warnings.iter().cloned()));
    warnings.sort_unstable();
    warnings.dedup();
    let outcome = if warnings.is_empty() { Outcome::Ok } else { Outcome::Problems };
    let mut after = map_state.clone();
    planned.ops.iter().for_each(|op| after.apply(op));
    let awaited = first_answers.status(&after, now);
    let planned = Planned::new(description, map_state, &planned.ops, awaited, warnings);
    surface::print(&planned, format).context("cannot print")?;
    Ok(outcome)
}

/// The inputs of a plan that the pinned maps hold.
#[derive(Default)]
struct Pinned {
    map_state: MapState,
    drained: BTreeSet<u32>,
    parked: BTreeSet<u32>,
    /// What the plan is compared with, in words.
    description: String,
}

/// Reads the pinned maps. Returns empty ones if nothing is pinned, or this user may not read them.
fn pinned(bpffs: &Path) -> anyhow::Result<Pinned> {
    let folder = bpffs.display();
    let empty = |description| Ok(Pinned { description, ..Pinned::default() });
    match read_pins(bpffs) {
        Ok(pinned) => Ok(pinned),
        Err(Error::NoPins { .. }) if nix::unistd::geteuid().is_root() => {
            empty(format!("empty tables: nothing is pinned under {folder}"))
        }
        Err(error) if nix::unistd::geteuid().is_root() => Err(error.into()),
        Err(_) => {
            let reason = "nothing is pinned there, or this user may not read it";
            empty(format!("empty tables, not with {folder}: {reason}"))
        }
    }
}

fn read_pins(bpffs: &Path) -> Result<Pinned, Error> {
    let pins = Pins::at(bpffs);
    let maps = Maps::open(&pins)?;
    let map_state = maps.tables()?;
    let drained = drained_in(&map_state, &maps.drained()?);
    let is_unavailable = |id, backend: &Backend| {
        maps.ejected(id) || is_full(backend, maps.load(id).map_or(0, |counters| counters.active()))
    };
    // A running agent keeps backends parked; a new one starts without any.
    let parked = if is_alive(&pins).unwrap_or(false) { parked_in(&map_state, is_unavailable) } else { BTreeSet::new() };
    let description = format!("what is pinned under {}", bpffs.display());
    Ok(Pinned { map_state, drained, parked, description })
}

/// Returns the first answer of every source.
async fn read_once(config: Sources, wait: Duration) -> anyhow::Result<BTreeMap<SourceId, Snapshot>> {
    let wanted = config.ids();
    let (reports, mut answers) = mpsc::channel(8);
    config.start(&reports);
    drop(reports);
    let mut snapshots = BTreeMap::new();
    let mut troubles = BTreeMap::new();
    let mut deadline = Instant::now() + wait;
    while snapshots.len() < wanted.len() {
        match tokio::time::timeout_at(deadline.into(), answers.recv()).await {
            Ok(Some(Report::Snapshot { source, snapshot, .. })) => {
                snapshots.insert(source, snapshot);
            }
            Ok(Some(Report::Failed { source, reason, .. })) => {
                if troubles.is_empty() && !snapshots.contains_key(&source) {
                    deadline = deadline.min(Instant::now() + RETRY_TIME);
                }
                troubles.insert(source, reason);
            }
            Ok(None) | Err(_) => break,
        }
    }
    let silent = |source: &SourceId| {
        let reason = troubles.get(source).cloned();
        let slow = || format!("no answer within {} s; give it more with --wait", wait.as_secs());
        format!("{source}: {}", reason.unwrap_or_else(slow))
    };
    let missing: Vec<_> = wanted.iter().filter(|source| !snapshots.contains_key(source)).map(silent).collect();
    anyhow::ensure!(missing.is_empty(), "{}", missing.join("\n            "));
    Ok(snapshots)
}
