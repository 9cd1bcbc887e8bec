//! A running registrator source, and its reports.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use proxymatic_user::{
    model::{Service, ServiceKey, Snapshot},
    source::{
        Report,
        registrator::{self, AccessFiles, Config},
    },
};
use tokio::{sync::mpsc, time::timeout};

const MS: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(30);

pub(crate) struct Source(mpsc::Receiver<Report>);

impl Source {
    /// Starts a source without a poll that could hide a missed change.
    pub(crate) fn of(url: &str) -> Self {
        Self::with(url, &AccessFiles::default())
    }

    /// Starts a source with the access of these files.
    pub(crate) fn with(url: &str, files: &AccessFiles) -> Self {
        Self::start(Config::new(url, Duration::from_secs(3600)).unwrap().with_access(files).unwrap())
    }

    /// Starts a source with this time until a loss is confirmed, after an earlier agent that published `adopted`.
    pub(crate) fn with_confirm(url: &str, confirm: Duration, adopted: Snapshot) -> Self {
        let mut config = Config::new(url, Duration::from_secs(3600)).unwrap();
        (config.confirm, config.adopted) = (confirm, adopted);
        Self::start(config)
    }

    fn start(mut config: Config) -> Self {
        let (send, reports) = mpsc::channel(64);
        config.first_wait = 20 * MS;
        tokio::spawn(registrator::run(config, send));
        Self(reports)
    }

    pub(crate) async fn next(&mut self) -> Report {
        timeout(LONG, self.0.recv()).await.expect("no report").unwrap()
    }

    pub(crate) async fn snapshot(&mut self) -> Snapshot {
        loop {
            if let Report::Snapshot { snapshot, .. } = self.next().await {
                return snapshot;
            }
        }
    }

    /// Waits for a snapshot with these services and backends.
    pub(crate) async fn sees(&mut self, expected: &[&str]) -> Snapshot {
        let (mut last, mut failure) = (Vec::new(), None);
        let deadline = Instant::now() + LONG;
        while let Ok(Some(report)) = tokio::time::timeout_at(deadline.into(), self.0.recv()).await {
            match report {
                Report::Snapshot { snapshot, .. } => {
                    last = shown(&snapshot);
                    if last == expected {
                        return snapshot;
                    }
                }
                Report::Failed { reason, .. } => failure = Some(reason),
            }
        }
        panic!("not seen: {expected:?}; last: {last:?}, {failure:?}");
    }

    pub(crate) async fn failure(&mut self) -> String {
        loop {
            if let Report::Failed { reason, .. } = self.next().await {
                return reason;
            }
        }
    }
}

pub(crate) fn shown(snapshot: &Snapshot) -> Vec<String> {
    let line = |(key, service): (&ServiceKey, &Arc<Service>)| {
        let backends: Vec<_> = service.backends.iter().map(|it| format!("{}:{}", it.address, it.port)).collect();
        format!("{} {key} {}", service.name, backends.join(" "))
    };
    snapshot.services.iter().map(line).collect()
}
