//! registrator as a source: it keeps the containers of each host in etcd, under a folder for each service.
//!
//! The folder is read whole, then watched: any change means that it is read again. [`mod@read`] and [`wire`] are pure.

mod client;
pub mod read;
pub mod wire;

use std::{
    collections::BTreeSet,
    fmt,
    hash::{BuildHasher as _, RandomState},
    time::{Duration, Instant},
};

use reqwest::Url;
use tokio::sync::mpsc;

use self::client::{Client, Failure, Listing};
use super::{
    Report, SourceId,
    resolve::Resolver,
    retry::{Dice, Failures, Limits},
};
use crate::model::Snapshot;

/// How long after a change it is read: a container that starts writes several keys.
const QUIET: Duration = Duration::from_millis(100);
/// The longest rest between two reads while things change.
const REST: Duration = Duration::from_secs(1);

/// What the source has to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The members of the cluster, in the order in which they are asked.
    pub endpoints: Vec<Url>,
    /// The folder of services, without a slash at its end; empty for all of etcd.
    pub prefix: String,
    /// The longest time between two reads.
    pub refresh: Duration,
    /// Whether services are served that a container has on its own host on the very service port.
    pub expose_host: bool,
    /// How long to wait after the first failure.
    pub first_wait: Duration,
}

impl Config {
    /// Reads `etcd://HOST[:PORT][,HOST[:PORT]...]/PREFIX`, where ports are 2379 if not given.
    ///
    /// # Errors
    /// It is none: one sentence that begins with it.
    pub fn new(url: &str, refresh: Duration) -> Result<Self, String> {
        let wrong = |reason: &str| format!("{url}: {reason}; write it as etcd://host:2379/services");
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("must start with etcd://"))?;
        if !["etcd", "http"].contains(&scheme.to_ascii_lowercase().as_str()) {
            return Err(wrong(&format!("{scheme}:// is not supported by this version")));
        }
        if rest.contains('@') {
            // Not shown: what stands before the @ may be a password.
            return Err(
                "URL: credentials for etcd are not supported by this version; leave out what is before the @".into()
            );
        }
        if rest.contains(['?', '#']) {
            return Err(wrong("must end with the path: no ? and no #"));
        }
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let mut endpoints = Vec::new();
        for host in hosts.split(',').map(str::trim).filter(|host| !host.is_empty()) {
            let mut endpoint = Url::parse(&format!("http://{host}"))
                .map_err(|error| wrong(&format!("{host:?} is no host: {error}")))?;
            let named = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            if !named && endpoint.set_port(Some(2379)).is_err() {
                return Err(wrong(&format!("{host:?} is no host")));
            }
            endpoints.push(endpoint);
        }
        if endpoints.is_empty() {
            return Err(wrong("names no host"));
        }
        let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
        let prefix = parts.iter().map(|part| format!("/{part}")).collect();
        Ok(Self { endpoints, prefix, refresh, expose_host: false, first_wait: Limits::default().first })
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = self.endpoints.iter().map(|url| url.authority().to_owned()).collect::<Vec<_>>().join(",");
        write!(f, "etcd://{hosts}{}", self.prefix)
    }
}

/// Reads and watches etcd for ever and reports each whole answer, and each trouble. Returns when nobody takes reports
/// any more.
pub async fn run(config: Config, reports: mpsc::Sender<Report>) {
    tokio::select! {
        () = follow(&config, &reports) => {}
        () = reports.closed() => {}
    }
}

async fn follow(config: &Config, reports: &mpsc::Sender<Report>) {
    // The state of the hasher is random for each process: that is all that is wanted of it.
    let mut dice = Dice::new(RandomState::new().hash_one(1));
    let limits = Limits { first: config.first_wait, ..Limits::default() };
    let (mut reading, mut watching) = (Failures::default(), Failures::default());
    let trouble = |reason: String, attempt, again_in| {
        let url = config.to_string();
        Report::Trouble { source: SourceId::Registrator, url, reason, attempt, again_in }
    };
    let client = loop {
        match Client::new(config.endpoints.clone(), &config.prefix) {
            Ok(client) => break client,
            Err(error) => {
                let (attempt, again_in, tell) = reading.add(&error.to_string(), limits, &mut dice);
                if tell
                    && reports.send(trouble(format!("etcd cannot be asked: {error}"), attempt, again_in)).await.is_err()
                {
                    return;
                }
                tokio::time::sleep(again_in).await;
            }
        }
    };
    let mut hosts = Resolver::default();
    loop {
        let at = Instant::now();
        let listing = match client.list().await {
            Ok(listing) => listing,
            Err(Failure(reason)) => {
                let (attempt, again_in, tell) = reading.add(&reason, limits, &mut dice);
                if tell && reports.send(trouble(reason, attempt, again_in)).await.is_err() {
                    return;
                }
                tokio::time::sleep(again_in).await;
                continue;
            }
        };
        reading.clear();
        let snapshot = snapshot(config, &listing, &mut hosts).await;
        if reports.send(Report::Snapshot { source: SourceId::Registrator, snapshot, at }).await.is_err() {
            return;
        }
        let rest = at.elapsed().clamp(QUIET, REST);
        match tokio::time::timeout(dice.jitter(config.refresh), client.changed(&listing)).await {
            Ok(Ok(())) => {
                watching.clear();
                tokio::time::sleep(rest).await;
            }
            // Time for a look, whatever the watch says.
            Err(_) => watching.clear(),
            Ok(Err(Failure(reason))) => {
                let (attempt, again_in, tell) = watching.add(&reason, limits, &mut dice);
                // That a watch ends now and then is usual, and where etcd is gone the next read says so.
                let reason = format!("{reason}; until it can be watched, changes are seen only by polling");
                if tell && attempt > 1 && reports.send(trouble(reason, attempt, again_in)).await.is_err() {
                    return;
                }
                tokio::time::sleep(again_in).await;
            }
        }
    }
}

async fn snapshot(config: &Config, listing: &Listing, hosts: &mut Resolver) -> Snapshot {
    let needed: BTreeSet<_> = read::names(&listing.entries).map(str::to_owned).collect();
    let found = hosts.resolve(&needed).await;
    read::read(&listing.entries, &config.prefix, &found, config.expose_host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> Result<Config, String> {
        Config::new(url, Duration::from_secs(60))
    }

    #[test]
    fn urls_of_one_or_several_hosts() {
        for (url, shown) in [
            ("etcd://10.0.0.1:4001/services", "etcd://10.0.0.1:4001/services"),
            ("etcd://h1:4001,h2/a//b/", "etcd://h1:4001,h2:2379/a/b"),
            ("http://h:80/services", "etcd://h:80/services"),
            ("etcd://[2001:db8::1]:4001", "etcd://[2001:db8::1]:4001"),
            ("etcd://[2001:db8::1]/x", "etcd://[2001:db8::1]:2379/x"),
        ] {
            // The port that http has by itself is not printed by the type of URL.
            assert_eq!(config(url).unwrap().to_string().replace("h/", "h:80/"), shown, "{url}");
        }
    }

    #[test]
    fn what_is_no_url_is_said_and_no_password_shown() {
        for (url, part) in [
            ("h:4001/services", "must start with etcd://"),
            ("consul://h/services", "consul:// is not supported"),
            ("etcd:///services", "names no host"),
            ("etcd://h:port/services", "is no host"),
            ("etcd://h/services?x", "no ?"),
        ] {
            let said = config(url).unwrap_err();
            assert!(said.contains(part) && said.starts_with(url), "{said}");
        }
        let said = config("etcd://me:secret@h/services").unwrap_err();
        assert!(said.contains("credentials") && !said.contains("secret"), "{said}");
    }
}
