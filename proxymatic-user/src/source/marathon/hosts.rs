//! The addresses of hosts that are names, IPv4 first, asked anew now and then.
//!
//! An address that was known stays good while its name cannot be resolved: a name server that is away takes no replica
//! with it, and does not hold up what else there is to read.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};

/// How long an address is used without asking again.
const FRESH: Duration = Duration::from_secs(60);
/// How long after a failure the name is not asked for again.
const RETRY: Duration = Duration::from_secs(10);
/// How long one name may take.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How long all of them together may take.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How many names are asked for at the same time.
const AT_ONCE: usize = 16;

/// The hosts of the last listing.
#[derive(Debug, Default)]
pub(super) struct Hosts(BTreeMap<String, Entry>);

#[derive(Debug)]
struct Entry {
    address: Result<IpAddr, String>,
    again: Instant,
}

impl Hosts {
    /// The address of each of the names, or one sentence why there is none. All other names are forgotten.
    pub(super) async fn resolve(&mut self, names: &BTreeSet<String>) -> BTreeMap<String, Result<IpAddr, String>> {
        self.0.retain(|name, _| names.contains(name));
        let now = Instant::now();
        let due = |name: &&String| self.0.get(*name).is_none_or(|entry| entry.again <= now);
        let mut due: BTreeSet<String> = names.iter().filter(due).cloned().collect();
        let ask = |name: String| async move { (lookup(&name).await, name) };
        let mut answers = std::pin::pin!(stream::iter(due.clone()).map(ask).buffer_unordered(AT_ONCE));
        let deadline = tokio::time::Instant::now() + WHOLE_TIMEOUT;
        while let Ok(Some((answer, name))) = tokio::time::timeout_at(deadline, answers.next()).await {
            due.remove(&name);
            self.note(name, answer);
        }
        for name in due {
            self.note(name, Err(SLOW.into()));
        }
        self.0.iter().map(|(name, entry)| (name.clone(), entry.address.clone())).collect()
    }

    fn note(&mut self, name: String, answer: Result<IpAddr, String>) {
        let now = Instant::now();
        match (answer, self.0.get_mut(&name)) {
            (Err(_), Some(known)) if known.address.is_ok() => known.again = now + RETRY,
            (address, _) => {
                let again = now + if address.is_ok() { FRESH } else { RETRY };
                self.0.insert(name, Entry { address, again });
            }
        }
    }
}

const SLOW: &str = "the name server was too slow";

async fn lookup(name: &str) -> Result<IpAddr, String> {
    let answer = tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((name, 0))).await;
    let all = answer.map_err(|_| SLOW)?.map_err(|error| error.to_string())?;
    let all: Vec<_> = all.map(|address| address.ip()).collect();
    let first = all.iter().find(|address| address.is_ipv4()).or(all.first());
    first.copied().ok_or_else(|| "its name has no address".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_known_address_outlives_the_name_server_and_an_unknown_name_is_said() {
        let mut hosts = Hosts::default();
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        let past = Instant::now();
        hosts.0.insert("known.invalid".into(), Entry { address: Ok(address), again: past });
        hosts.0.insert("gone.invalid".into(), Entry { address: Ok(address), again: past });
        let names = ["known.invalid", "unknown.invalid", "localhost"].map(String::from).into();
        let found = hosts.resolve(&names).await;
        assert_eq!(found["known.invalid"], Ok(address));
        assert!(found["unknown.invalid"].is_err());
        assert_eq!(found["localhost"], Ok("127.0.0.1".parse().unwrap()));
        assert_eq!(found.len(), 3);
        assert!(hosts.0.values().all(|entry| entry.again > Instant::now()));
    }
}
