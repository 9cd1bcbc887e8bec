//! A running source, and its reports.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use marathon_sim::Sim;
use proxymatic_user::{
    model::{Protocol, ServiceKey, Snapshot, State},
    source::{
        Report,
        marathon::{self, AccessFiles, Config, Timing},
    },
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

pub(crate) const MS: Duration = Duration::from_millis(1);

/// How long a test waits before it fails: a guard against hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Returns short durations, but no poll that could hide a missed event, and none that a stalled machine could end.
pub(crate) fn quick() -> Timing {
    let long = Duration::from_secs(600);
    Timing {
        refresh: long,
        attached: long,
        silence: long,
        blind: long,
        unannounced: Timing::default().unannounced,
        quiet: 20 * MS,
        confirm: 50 * MS,
        at_most: 200 * MS,
        retry_first: 20 * MS,
        retry_most: 100 * MS,
    }
}

/// A running source, and its reports.
pub(crate) struct Source {
    pub(crate) reports: mpsc::Receiver<Report>,
    pub(crate) task: JoinHandle<()>,
    /// The backends of port 1234 that must be active in each snapshot.
    live: Vec<u16>,
}

impl Source {
    pub(crate) fn new(urls: &[String], timing: Timing) -> Self {
        Self::with(urls, timing, &AccessFiles::default())
    }

    /// Starts a source with the access of these files.
    pub(crate) fn with(urls: &[String], timing: Timing, files: &AccessFiles) -> Self {
        let (send, reports) = mpsc::channel(64);
        let config = Config::new(urls, Duration::from_secs(60), NonZeroU32::MIN).expect("good URLs");
        let config = Config { timing, seed: 1, ..config.with_access(files).expect("good files") };
        Self { reports, task: tokio::spawn(marathon::run(config, send)), live: Vec::new() }
    }

    /// Requires from now on that these backends of port 1234 are active in each snapshot.
    pub(crate) fn live(&mut self, ports: &[u16]) {
        self.live = ports.into();
    }

    pub(crate) fn of(sim: &Sim) -> Self {
        Self::new(&[sim.url()], quick())
    }

    pub(crate) async fn next(&mut self) -> Report {
        let report = timeout(PATIENCE, self.reports.recv()).await;
        let report = report.expect("no report within 30 s").expect("the source has ended");
        self.check(&report);
        report
    }

    fn check(&self, report: &Report) {
        let Report::Snapshot { snapshot, .. } = report else { return };
        let known = backends(snapshot, 1234);
        for port in &self.live {
            assert!(known.contains(&(*port, State::Active)), "{port} is not active: {known:?}");
        }
    }

    /// Waits for a snapshot in which the service of this port has these ports and states, in order.
    pub(crate) async fn sees(&mut self, port: u16, expected: &[(u16, State)]) -> Snapshot {
        let mut last = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while let Ok(Some(report)) = tokio::time::timeout_at(deadline.into(), self.reports.recv()).await {
            self.check(&report);
            if let Report::Snapshot { snapshot, .. } = report {
                last = backends(&snapshot, port);
                if last == expected {
                    return snapshot;
                }
            }
        }
        panic!("not seen within {PATIENCE:?}: {expected:?}; last: {last:?}");
    }

    /// Returns the URL and the reason of the next failure. No snapshot before it may have fewer backends of port 1234.
    pub(crate) async fn failure(&mut self, at_least: usize) -> (String, String) {
        loop {
            match self.next().await {
                Report::Failed { url, reason, .. } => return (url, reason),
                Report::Snapshot { snapshot, .. } => {
                    let known = backends(&snapshot, 1234);
                    assert!(known.len() >= at_least, "{known:?} instead of {at_least}");
                }
            }
        }
    }

    /// Returns the next snapshot. Failures before it are skipped.
    pub(crate) async fn snapshot(&mut self) -> Snapshot {
        loop {
            if let Report::Snapshot { snapshot, .. } = self.next().await {
                return snapshot;
            }
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn backends(snapshot: &Snapshot, port: u16) -> Vec<(u16, State)> {
    let service = snapshot.services.get(&ServiceKey::host(port, Protocol::Tcp));
    let mut backends: Vec<_> =
        service.into_iter().flat_map(|service| &service.backends).map(|it| (it.port, it.state)).collect();
    backends.sort_unstable();
    backends
}

pub(crate) fn count(sim: &Sim, path: &str) -> usize {
    sim.log().iter().filter(|request| request.path.starts_with(path)).count()
}
