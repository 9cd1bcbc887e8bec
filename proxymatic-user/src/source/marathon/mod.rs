//! Marathon as a source: its event stream says when to look, a full listing says what there is.
//!
//! [`run`] is the loop. [`mod@read`] and [`sse`] are pure. An answer counts only if it is whole; after any other one the
//! source keeps silent, so that the last snapshot stays good, and says what is wrong.

mod carry;
mod client;
mod definition;
mod endpoint;
mod failure;
mod hosts;
mod merge;
mod pace;
pub mod ports;
pub mod read;
pub mod sse;
mod stream;
mod versions;
pub mod wire;

use std::{
    hash::{BuildHasher, RandomState},
    num::NonZeroU32,
    ops::RangeInclusive,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use self::{
    carry::Carry,
    client::Client,
    failure::Failure,
    hosts::Hosts,
    pace::{Dice, Failures, Hint, Pace},
    read::Found,
    versions::Versions,
};
pub use self::{
    endpoint::{Endpoint, parse},
    pace::Timing,
};
use super::{Report, SourceId};
use crate::model::Snapshot;

/// The refresh intervals that make sense: more often would be a load on Marathon, more rarely no refresh.
const REFRESH: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

/// What the source has to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where Marathon answers, in the order in which they are asked.
    pub endpoints: Vec<Endpoint>,
    /// How many hosts share a `maxconn` label.
    pub group_size: NonZeroU32,
    /// All the times that matter.
    pub timing: Timing,
    /// What makes the times of this agent differ from those of others.
    pub seed: u64,
}

impl Config {
    /// A configuration with the usual times. `urls` are the values of `--marathon`, see [`parse`].
    ///
    /// `refresh` is from a second to a day. `Err` has one sentence for each thing that is no good.
    pub fn new<S: AsRef<str>>(urls: &[S], refresh: Duration, group_size: NonZeroU32) -> Result<Self, Vec<String>> {
        // The state of the hasher is random for each process: that is all that is wanted of it.
        let seed = RandomState::new().hash_one(0);
        let timing = Timing { refresh, ..Timing::default() };
        let mut parsed = parse(urls);
        if !REFRESH.contains(&refresh) {
            let reason =
                format!("the refresh interval is {refresh:?}; it must be from 1 to {} s", REFRESH.end().as_secs());
            parsed = Err(parsed.err().into_iter().flatten().chain([reason]).collect());
        }
        Ok(Self { endpoints: parsed?, group_size, timing, seed })
    }
}

/// Reads Marathon for ever and reports each whole answer, and each trouble. Returns when nobody takes reports any more.
pub async fn run(config: Config, reports: mpsc::Sender<Report>) {
    let Config { endpoints, group_size, timing, seed } = config;
    let (mut dice, mut failures) = (Dice::new(seed), Failures::default());
    let client = loop {
        match Client::new(endpoints.clone()) {
            Ok(client) => break client,
            Err(error) => {
                let failure =
                    Failure { url: "Marathon".into(), what: format!("cannot be asked: {error}"), missing: false };
                let (attempt, again_in, tell) = failures.add(&failure.what, &timing, &mut dice);
                if tell && reports.send(trouble(&failure, attempt, again_in)).await.is_err() {
                    return;
                }
                tokio::time::sleep(again_in).await;
            }
        }
    };
    let reading_works = AtomicBool::new(false);
    let (hint, hints) = mpsc::channel(stream::HINTS);
    let reader = Reader {
        client: &client,
        group_size,
        carry: Carry::default(),
        hosts: Hosts::default(),
        versions: Versions::default(),
        works: &reading_works,
    };
    tokio::select! {
        () = stream::follow(&client, &timing, !seed, hint, &reports, &reading_works) => {}
        () = read_on(reader, timing, dice, hints, &reports) => {}
        () = reports.closed() => {}
    }
}

/// Reads whenever it is due; ends when nobody takes reports any more.
async fn read_on(
    mut reader: Reader<'_>,
    timing: Timing,
    mut dice: Dice,
    mut hints: mpsc::Receiver<Hint>,
    reports: &mpsc::Sender<Report>,
) {
    let (mut pace, mut failures) = (Pace::new(Instant::now(), timing), Failures::default());
    loop {
        tokio::select! {
            Some(hint) = hints.recv() => {
                pace.hint(Instant::now(), hint);
                continue;
            }
            () = tokio::time::sleep_until(pace.due().into()) => {}
        }
        pace.begin(Instant::now());
        let outcome = {
            let mut read = std::pin::pin!(reader.read());
            loop {
                tokio::select! {
                    outcome = &mut read => break outcome,
                    Some(hint) = hints.recv() => pace.hint(Instant::now(), hint),
                }
            }
        };
        reader.works.store(outcome.is_ok(), Ordering::Relaxed);
        let report = match outcome {
            Ok((at, snapshot)) => {
                failures.clear();
                pace.succeeded(Instant::now(), &mut dice);
                Some(Report::Snapshot { source: SourceId::Marathon, snapshot, at })
            }
            Err(failure) => {
                let (attempt, again_in, tell) = failures.add(&failure.what, &timing, &mut dice);
                pace.failed(Instant::now(), again_in);
                tell.then(|| trouble(&failure, attempt, again_in))
            }
        };
        if let Some(report) = report
            && reports.send(report).await.is_err()
        {
            return;
        }
    }
}

fn trouble(failure: &Failure, attempt: u32, again_in: Duration) -> Report {
    let (url, reason) = (failure.url.clone(), failure.to_string());
    Report::Trouble { source: SourceId::Marathon, url, reason, attempt, again_in }
}

/// Everything that one read needs, and what it remembers for the next.
struct Reader<'a> {
    client: &'a Client,
    group_size: NonZeroU32,
    carry: Carry,
    hosts: Hosts,
    versions: Versions,
    /// Whether the last read had a good answer.
    works: &'a AtomicBool,
}

impl Reader<'_> {
    /// Everything Marathon knows, and when it was asked.
    async fn read(&mut self) -> Result<(Instant, Snapshot), Failure> {
        let (at, mut listing) = self.client.apps().await?;
        self.carry.over(&mut listing, at);
        let needs = read::needs(&listing);
        let definitions = self.versions.fetch(self.client, &needs.definitions).await?;
        let found = Found { definitions, hosts: self.hosts.resolve(&needs.hosts).await };
        let group_size = self.group_size;
        let snapshot = tokio::task::spawn_blocking(move || read::read(&listing, &found, group_size)).await;
        let unread = |error| Failure {
            url: "Marathon's answer".into(),
            what: format!("cannot be read: {error}"),
            missing: false,
        };
        snapshot.map(|snapshot| (at, snapshot)).map_err(unread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_wrong_with_a_configuration_is_said_at_once() {
        let new = |url: &str, seconds| Config::new(&[url], Duration::from_secs(seconds), NonZeroU32::MIN);
        assert!(new("http://h", 60).is_ok());
        assert_eq!(new("https://h", 0).unwrap_err().len(), 2);
        assert!(new("http://h", 86_401).unwrap_err()[0].contains("from 1 to 86400 s"));
    }
}
