//! `proxymatic plan`: what an agent would write, without writing it.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use proxymatic_common::SourceCode;
use tokio::sync::mpsc;

use super::{
    Outcome, PinArgs,
    args::SettingsArgs,
    sources::{self, SourceArgs},
    usage,
};
use crate::{
    addresses,
    agent::merge,
    dataplane::{
        Error,
        kernel::{Maps, Pins, cgroup_root, find_cgroup},
    },
    model::Snapshot,
    plan::{MapState, plan},
    source::{self, Report, SourceId},
    surface::{self, Format, Planned},
};

/// What can be done with a plan.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// What would change, and what cannot be done. Changes nothing, needs no root. Exit code 1 where there are warnings.
    #[command(alias = "list")]
    Show(Box<Args>),
}

/// What `plan show` takes: the sources of `run`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) sources: SourceArgs,
    #[command(flatten)]
    pub(super) wishes: SettingsArgs,
    /// How many seconds to wait for the answers of all sources.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=3600))]
    wait: u16,
}

/// How long a source that said that something failed may go on trying.
const TROUBLE: Duration = Duration::from_secs(3);

pub(super) fn run(args: &Args, pins: &PinArgs, format: Format) -> anyhow::Result<Outcome> {
    let mut wrong = Vec::new();
    let config = sources::check(&args.sources, &mut wrong);
    let wishes = args.wishes.check(&mut wrong);
    let config = config.filter(|_| wrong.is_empty());
    let config = config.ok_or_else(|| usage::join_errors(wrong))?;
    let (tables, against) = pinned(&pins.bpffs)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    let addresses = runtime.block_on(addresses::read())?;
    let snapshots = runtime.block_on(read_once(config, Duration::from_secs(args.wait.into())))?;
    let said = snapshots.iter().map(|(source, snapshot)| (*source, Some(snapshot))).collect();
    let (mut desired, mut warnings) = merge(&said, &addresses, &tables);
    // Whether there is a self-test is the agent's own affair.
    desired.unanswered.insert(SourceCode::SELF);
    let services = snapshots.values().flat_map(|snapshot| snapshot.services.values());
    let root = cgroup_root().ok();
    let cgroup = |path: &str| find_cgroup(root.as_deref()?, path);
    let cgroups = wishes.cgroups(services.map(|service| &service.settings), cgroup);
    warnings.extend(wishes.put(&mut desired, cgroups));
    let planned = plan(&desired, &tables);
    warnings.extend(planned.warnings);
    warnings.extend(snapshots.values().flat_map(|snapshot| snapshot.warnings.iter().cloned()));
    warnings.sort_unstable();
    warnings.dedup();
    let outcome = if warnings.is_empty() { Outcome::Ok } else { Outcome::Problems };
    let planned = Planned::new(against, tables, &planned.ops, warnings);
    surface::print(&planned, format).context("cannot print")?;
    Ok(outcome)
}

/// What is pinned, or empty tables, and which of the two in words.
fn pinned(bpffs: &Path) -> anyhow::Result<(MapState, String)> {
    let folder = bpffs.display();
    match Maps::open(&Pins::at(bpffs)).and_then(|maps| maps.tables()) {
        Ok(tables) => Ok((tables, format!("what is pinned under {folder}"))),
        Err(Error::NoPins { .. }) if nix::unistd::geteuid().is_root() => {
            Ok((MapState::default(), format!("empty tables: nothing is pinned under {folder}")))
        }
        Err(error) if nix::unistd::geteuid().is_root() => Err(error.into()),
        Err(_) => {
            let why = "nothing is pinned there, or this user may not read it";
            Ok((MapState::default(), format!("empty tables, not with {folder}: {why}")))
        }
    }
}

/// The first answer of every source.
async fn read_once(config: source::Config, wait: Duration) -> anyhow::Result<BTreeMap<SourceId, Snapshot>> {
    let wanted = config.ids();
    let (reports, mut heard) = mpsc::channel(8);
    config.start(&reports);
    drop(reports);
    let mut snapshots = BTreeMap::new();
    let mut troubles = BTreeMap::new();
    let mut deadline = Instant::now() + wait;
    while snapshots.len() < wanted.len() {
        match tokio::time::timeout_at(deadline.into(), heard.recv()).await {
            Ok(Some(Report::Snapshot { source, snapshot, .. })) => {
                snapshots.insert(source, snapshot);
            }
            Ok(Some(Report::Failed { source, reason, .. })) => {
                if troubles.is_empty() && !snapshots.contains_key(&source) {
                    deadline = deadline.min(Instant::now() + TROUBLE);
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
