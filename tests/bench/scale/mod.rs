//! The cost of the agent as the cluster grows: time and memory from Marathon's bytes to the maps, and time from an
//! event to the switch.

mod report;
mod sync;

use std::{
    env, fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use proxymatic_tests::lab::Host;

use self::report::Size;
pub(crate) use self::{report::Report, sync::FullSync};
use crate::{
    machine::Machine,
    output::Output,
    sources::Sources,
    statistics::{median, percentile},
};

/// Sync time, memory and event latency, from 100 services to 20,000 with 100,000 backends.
#[derive(Debug, clap::Parser)]
pub(crate) struct Scale {
    /// Number of services; repeatable.
    #[arg(long, default_values_t = SIZES)]
    services: Vec<u16>,
    /// Number of backends of each.
    #[arg(long, default_value_t = 5)]
    backends: u16,
    /// Number of tasks that end, one after the other.
    #[arg(long, default_value_t = 100)]
    events: usize,
    #[command(flatten)]
    output: Output,
}

const SIZES: [u16; 5] = [100, 1_000, 5_000, 10_000, 20_000];

impl Scale {
    /// The options of `all`.
    pub(crate) fn new() -> Self {
        Self { services: SIZES.into(), backends: 5, events: 100, output: Output::default() }
    }

    pub(crate) fn run(&self) -> Result<()> {
        self.output.put(&self.measure()?)
    }

    pub(crate) fn measure(&self) -> Result<Report> {
        let begun = Instant::now();
        let mut sizes = Vec::new();
        for services in &self.services {
            sizes.push(self.one(*services).with_context(|| format!("{services} services"))?);
        }
        Ok(Report { machine: Machine::this(), seconds: begun.elapsed().as_secs_f64(), sizes })
    }

    fn one(&self, services: u16) -> Result<Size> {
        let mut synced = None;
        let events = self.events.min(usize::from(services));
        let found = Sources::of(services, self.backends, events).measure(|lab, host, body| {
            let file = lab.run_dir().join("listing.json");
            fs::write(&file, body)?;
            synced = Some(sync(host, &file.to_string_lossy(), services, self.backends)?);
            Ok(fs::remove_file(&file)?)
        })?;
        Ok(Size {
            services,
            backends: u32::from(services) * u32::from(self.backends),
            synced: synced.context("nothing was synced")?,
            agent_ms: found.read,
            listing_ms: found.answer,
            event_p50_ms: median(&found.written),
            event_p99_ms: percentile(&found.written, 99),
            resident_mb: found.resident,
            highest_mb: found.highest,
        })
    }
}

/// A process of its own, so that its memory is only that of the sync.
fn sync(host: &Host, file: &str, services: u16, backends: u16) -> Result<sync::Synced> {
    let cgroup = host.cgroup().child("sync")?;
    let pins = host.pins().join("sync");
    let (cgroup, pins) = (cgroup.path().display().to_string(), pins.display().to_string());
    let (services, backends) = (services.to_string(), (u32::from(services) * u32::from(backends)).to_string());
    let arguments = [
        "sync",
        "--file",
        file,
        "--cgroup",
        &cgroup,
        "--bpffs",
        &pins,
        "--services",
        &services,
        "--backends",
        &backends,
    ];
    let said = host.run(&env::current_exe()?, &arguments, Duration::from_secs(60))?.well()?.stdout;
    serde_json::from_str(&said).with_context(|| format!("sync printed {said:?}"))
}
