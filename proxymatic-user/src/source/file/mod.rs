//! A file of services as a source, read again when it changes.
//!
//! It is read each second and compared, not watched: an edit in place, a rename over it, a link in the path that is
//! turned (as for a ConfigMap) and a file system without events are all the same to that, and a file of some kilobytes
//! costs less than the watches of every folder and link that lead to it.

pub mod read;

use std::{
    collections::BTreeMap,
    fmt, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::{io::AsyncReadExt as _, sync::mpsc};

pub use self::read::{Format, Listing};
use super::{
    Report, SourceId,
    backoff::{Backoff, Jitter, Limits},
    resolve::Resolver,
};
use crate::model::Snapshot;

/// The address of each host that the file names, or why it has none.
type Addresses = BTreeMap<String, Result<IpAddr, String>>;

/// The largest file.
const MOST: u64 = 16 << 20;
/// How long a new content must stay the same before it counts: one that is being written is not half a file of services.
const SETTLE: Duration = Duration::from_millis(100);
/// How often the file is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// How often the agent is told that the file is still as it was.
const REFRESH: Duration = Duration::from_secs(60);

/// What the source has to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it is.
    pub path: PathBuf,
    /// How it is written.
    pub format: Format,
    /// How often the file is looked at.
    pub every: Duration,
}

impl Config {
    /// A file that is TOML or JSON by its name. It need not be there yet.
    ///
    /// # Errors
    /// The name ends otherwise: the rest of a sentence.
    pub fn new(path: &Path) -> Result<Self, &'static str> {
        let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        let format = match extension.as_deref() {
            Some("toml") => Format::Toml,
            Some("json") => Format::Json,
            _ => return Err("its name must end in .toml or .json, which says how it is to be read"),
        };
        Ok(Self { path: path.to_owned(), format, every: EVERY })
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// Reads the file for ever and reports each new content, each address of a host that changes, and each trouble. Returns
/// when nobody takes reports any more.
pub async fn run(config: Config, reports: mpsc::Sender<Report>) {
    follow(config, Resolver::default(), reports).await;
}

async fn follow(config: Config, mut hosts: Resolver, reports: mpsc::Sender<Report>) {
    let (mut failures, mut dice) = (Backoff::default(), Jitter::new(0));
    let mut used: Option<Used> = None;
    loop {
        let at = Instant::now();
        let (report, wait) = match look(&config, &mut used).await {
            Ok(used) => {
                failures.clear();
                let needed = used.listing.names().map(str::to_owned).collect();
                let snapshot = used.snapshot(hosts.resolve(&needed).await, at);
                (snapshot.map(|snapshot| Report::Snapshot { source: SourceId::File, snapshot, at }), config.every)
            }
            Err(reason) => {
                used = None;
                let limits = Limits { first: config.every, most: config.every };
                let (attempt, again_in, tell) = failures.next(&reason, limits, &mut dice);
                let url = config.to_string();
                let trouble = Report::Failed { source: SourceId::File, url, reason, attempt, again_in };
                (tell.then_some(trouble), again_in)
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

/// The file as it was when it last was looked at.
struct Used {
    content: Vec<u8>,
    listing: Listing,
    /// With which addresses of hosts the agent was told, and when.
    said: Option<(Addresses, Instant)>,
}

impl Used {
    /// What the agent has to be told: something new, or that all is still as it was. `at` is when the file was looked at.
    fn snapshot(&mut self, addresses: Addresses, at: Instant) -> Option<Snapshot> {
        // Of the same the same would be made, which takes milliseconds where there are thousands of services.
        if self.said.as_ref().is_some_and(|(last, when)| *last == addresses && when.elapsed() < REFRESH) {
            return None;
        }
        let snapshot = self.listing.read(&addresses);
        self.said = Some((addresses, at));
        Some(snapshot)
    }
}

/// What the file says, read anew only where it is not as it was.
async fn look<'a>(config: &Config, used: &'a mut Option<Used>) -> Result<&'a mut Used, String> {
    let path = config.path.display();
    let mut content = whole(&config.path).await.map_err(|error| format!("{path} {}", unreadable(&error)))?;
    if used.as_ref().is_none_or(|used| used.content != content) {
        loop {
            tokio::time::sleep(SETTLE).await;
            let again = whole(&config.path).await.map_err(|error| format!("{path} {}", unreadable(&error)))?;
            if again == content {
                break;
            }
            content = again;
        }
        let listing = read::parse(&content, config.format).map_err(|reason| format!("{path} {reason}"))?;
        *used = Some(Used { content, listing, said: None });
    }
    used.as_mut().ok_or_else(|| format!("{path} cannot be read"))
}

async fn whole(path: &Path) -> io::Result<Vec<u8>> {
    // Anything else could make us wait for ever.
    if !tokio::fs::metadata(path).await?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut content = Vec::new();
    tokio::fs::File::open(path).await?.take(MOST + 1).read_to_end(&mut content).await?;
    if content.len() as u64 > MOST {
        return Err(io::Error::other(format!("it is larger than {} MiB", MOST >> 20)));
    }
    Ok(content)
}

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "is not there; make it, or start the agent without --file".into(),
        _ => format!("cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests;
