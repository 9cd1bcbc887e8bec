//! The file source: a file of services that is read again after it changes.
//!
//! The source reads the file each second and compares it, without a watch. That covers an edit in place, a rename, a changed
//! link in the path (as for a ConfigMap) and a file system without events. A read of some kilobytes costs less than a watch
//! of each folder and link in the path.

pub mod read;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use tokio::{io::AsyncReadExt as _, sync::mpsc};

pub use self::read::{Format, Listing};
use super::{
    Source,
    backoff::{Backoff, Jitter, Limits},
    id::SourceId,
    report::Report,
    resolve::Resolver,
};
use crate::model::Snapshot;

/// The address of each name of a host in the file, or why it has none.
type Addresses = BTreeMap<String, Result<IpAddr, String>>;

/// The largest file, in bytes.
const MAX_FILE: u64 = 16 << 20;
/// How long new content must stay the same before it counts: a file may be read while it is being written.
const SETTLE: Duration = Duration::from_millis(100);
/// The time between two reads of the file.
const EVERY: Duration = Duration::from_secs(1);
/// The time between two reports of an unchanged file.
const REFRESH: Duration = Duration::from_secs(60);

/// The configuration of the file source. Printed, it is the path.
#[derive(Clone, Debug)]
pub struct Config {
    /// The path of the file.
    pub path: PathBuf,
    /// The format of the file.
    pub format: Format,
    /// The time between two reads of the file.
    pub every: Duration,
}

impl Config {
    /// Returns the configuration for a file that is TOML or JSON by its name. The file need not exist yet.
    ///
    /// # Errors
    /// The name has another ending; the text is the rest of a sentence.
    pub fn new(path: &Path) -> Result<Self, &'static str> {
        let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        let format = match extension.as_deref() {
            Some("toml") => Format::Toml,
            Some("json") => Format::Json,
            _ => return Err("its name must end in .toml or .json, which is its format"),
        };
        Ok(Self { path: path.to_owned(), format, every: EVERY })
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

impl Source for Config {
    fn id(&self) -> SourceId {
        SourceId::File
    }

    fn locations(&self) -> BTreeSet<String> {
        [self.to_string()].into()
    }

    fn run(self: Box<Self>, reports: mpsc::Sender<Report>) -> BoxFuture<'static, ()> {
        Box::pin(run(*self, reports))
    }
}

/// Reads the file for ever, and reports each new content, each changed address of a host, and each failure. Returns after
/// the receiver of the reports is dropped.
pub async fn run(config: Config, reports: mpsc::Sender<Report>) {
    follow(config, Resolver::default(), reports).await;
}

async fn follow(config: Config, mut hosts: Resolver, reports: mpsc::Sender<Report>) {
    let (mut backoff, mut jitter) = (Backoff::default(), Jitter::new(0));
    let mut last: Option<Loaded> = None;
    loop {
        let at = Instant::now();
        let (report, wait) = match load(&config, &mut last).await {
            Ok(loaded) => {
                backoff.clear();
                let needed = loaded.listing.host_names().map(str::to_owned).collect();
                let snapshot = loaded.snapshot(hosts.resolve(&needed).await, at);
                (snapshot.map(|snapshot| Report::Snapshot { source: SourceId::File, snapshot, at }), config.every)
            }
            Err(reason) => {
                last = None;
                let limits = Limits { first: config.every, most: config.every };
                let retry = backoff.next(&reason, limits, &mut jitter);
                let failed = Report::failed(SourceId::File, config.to_string(), reason, &retry);
                (retry.report.then_some(failed), retry.again_in)
            }
        };
        if let Some(report) = report
            && reports.send(report).await.is_err()
        {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = reports.closed() => return,
        }
    }
}

/// The file at the last read.
struct Loaded {
    content: Vec<u8>,
    listing: Listing,
    /// The addresses of hosts in the last report, and when it was sent.
    reported: Option<(Addresses, Instant)>,
}

impl Loaded {
    /// Returns the snapshot to report, if it is new or the last report is old. `at` is when the file was read.
    fn snapshot(&mut self, addresses: Addresses, at: Instant) -> Option<Snapshot> {
        // The same snapshot again would take milliseconds for thousands of services.
        if self.reported.as_ref().is_some_and(|(last, when)| *last == addresses && when.elapsed() < REFRESH) {
            return None;
        }
        let snapshot = self.listing.convert(&addresses);
        self.reported = Some((addresses, at));
        Some(snapshot)
    }
}

/// Reads the file, and parses it if it has changed.
async fn load<'a>(config: &Config, last: &'a mut Option<Loaded>) -> Result<&'a mut Loaded, String> {
    let path = config.path.display();
    let mut content = read_whole(&config.path).await.map_err(|error| format!("{path} {}", read_error(&error)))?;
    if last.as_ref().is_none_or(|last| last.content != content) {
        loop {
            tokio::time::sleep(SETTLE).await;
            let again = read_whole(&config.path).await.map_err(|error| format!("{path} {}", read_error(&error)))?;
            if again == content {
                break;
            }
            content = again;
        }
        let listing = read::parse(&content, config.format).map_err(|reason| format!("{path} {reason}"))?;
        *last = Some(Loaded { content, listing, reported: None });
    }
    last.as_mut().ok_or_else(|| format!("{path} cannot be read"))
}

async fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    // A read of anything else could block for ever.
    if !tokio::fs::metadata(path).await?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut content = Vec::new();
    tokio::fs::File::open(path).await?.take(MAX_FILE + 1).read_to_end(&mut content).await?;
    if content.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("it is larger than {} MiB", MAX_FILE >> 20)));
    }
    Ok(content)
}

fn read_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "does not exist; create it, or start the agent without --file".into(),
        _ => format!("cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests;
