//! One full sync: from the bytes of Marathon's answer in memory to the maps. `scale` runs it for each size.

use std::{
    collections::BTreeSet,
    fs,
    num::NonZeroU32,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use proxymatic_common::{HookFlags, Loopback};
use proxymatic_user::{
    agent::{Agent, Event},
    dataplane::kernel::{Kernel, Pins, RemoteClients, Settings},
    plan::Capacity,
    source::{
        Report, SourceId,
        marathon::{
            convert::{convert, parse},
            lookups::Lookups,
        },
    },
};
use serde::{Deserialize, Serialize};

/// Reads a listing from a file and publishes it; prints times and memory.
#[derive(Debug, clap::Parser)]
pub(crate) struct FullSync {
    /// Marathon's answer.
    #[arg(long)]
    file: PathBuf,
    /// The cgroup of the hooks.
    #[arg(long)]
    cgroup: PathBuf,
    /// The folder of the pins.
    #[arg(long)]
    bpffs: PathBuf,
    /// Number of services in it.
    #[arg(long)]
    services: usize,
    /// Number of backends.
    #[arg(long)]
    backends: u32,
}

/// Times and memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Synced {
    /// The bytes of the answer, in MB.
    pub(crate) answer_mb: f64,
    /// From bytes to parsed values, in ms.
    pub(crate) parse_ms: f64,
    /// From parsed values to services.
    pub(crate) read_ms: f64,
    /// From services to maps: plan and writes.
    pub(crate) publish_ms: f64,
    /// The sum.
    pub(crate) all_ms: f64,
    /// The maximum memory of the process, with the answer, in MB.
    pub(crate) highest_mb: f64,
}

impl FullSync {
    pub(crate) fn run(&self) -> Result<()> {
        let bytes = fs::read(&self.file)?;
        let backends = (self.backends + self.backends / 4).max(65_536);
        let services = (self.services as u32 + 64).max(16_384);
        let settings = Settings {
            bpffs: self.bpffs.clone(),
            cgroup: Some(self.cgroup.clone()),
            loopback: Loopback::HOST,
            capacity: Capacity { services, backends, ..Capacity::default() },
            hook_flags: HookFlags::LISTENERS,
            bypass_mark: 0,
            event_sample_rate: 0,
            remote: RemoteClients::default(),
            log: None,
        };
        let mut agent = Agent::adopt(Kernel::start(&settings)?, &[SourceId::Marathon])?;
        agent.handle(Event::Addresses(BTreeSet::from([[10, 77, 0, 1].into()])), Instant::now());
        let answer_mb = bytes.len() as f64 / 1e6;
        let begun = Instant::now();
        let listing = parse(&bytes)?;
        drop(bytes);
        let parsed = begun.elapsed();
        let snapshot = convert(&listing, &Lookups::default(), &NonZeroU32::MIN.into());
        let understood = begun.elapsed();
        let now = Instant::now();
        agent.handle(Event::Source(Report::Snapshot { source: SourceId::Marathon, snapshot, at: now }), now);
        let all = begun.elapsed();
        let (there, of) = (agent.tables().services().len(), agent.tables().backends().len());
        ensure!(there == self.services && of == self.backends as usize, "{there} services, {of} backends");
        // The agent keeps Marathon's answer, to merge single apps into it.
        drop(listing);
        let synced = Synced {
            answer_mb,
            parse_ms: ms(parsed),
            read_ms: ms(understood - parsed),
            publish_ms: ms(all - understood),
            all_ms: ms(all),
            highest_mb: highest()?,
        };
        println!("{}", serde_json::to_string(&synced)?);
        drop(agent);
        Pins::at(&self.bpffs).detach()?;
        Ok(())
    }
}

/// The maximum memory of this process, in MB.
fn highest() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes / 1024.0)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
