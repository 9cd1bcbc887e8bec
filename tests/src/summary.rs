//! The results of a client: which replicas answered, and which requests failed and when. The `client` binary prints it
//! as JSON, the harness reads it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Failures beyond this many are counted, not listed.
const LISTED: usize = 100;

/// The outcome of many requests, one connection each.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Requests with a complete answer.
    pub ok: u64,
    /// All other requests.
    pub failed: u64,
    /// Count of each error, by the name of its errno if it has one.
    pub errors: BTreeMap<String, u64>,
    /// Count of answers of each replica, by the name in the answer.
    pub by_replica: BTreeMap<String, u64>,
    /// Count of resets of UDP sockets whose replica is gone, by the replica's name.
    #[serde(default)]
    pub resets: BTreeMap<String, u64>,
    /// Count of each address that getpeername(2) returned.
    pub peer: BTreeMap<SocketAddr, u64>,
    /// The time of the slowest answered request, with its connect.
    pub slowest_us: u64,
    /// The first failures, one by one.
    pub failures: Vec<Failed>,
}

/// One request that failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failed {
    /// When it began, in seconds since the epoch.
    pub at: f64,
    /// How long it took to fail.
    pub took_us: u64,
    /// `connect`, `exchange` or `verify`.
    pub during: String,
    /// The errno's name, or the fault of the answer.
    pub error: String,
    /// The destination address.
    pub destination: SocketAddr,
    /// The client's own address, if it was connected.
    pub local: Option<SocketAddr>,
}

impl Summary {
    /// Counts a failure and lists it while there is room.
    pub fn fail(&mut self, failure: Failed) {
        self.failed += 1;
        *self.errors.entry(failure.error.clone()).or_default() += 1;
        if self.failures.len() < LISTED {
            self.failures.push(failure);
        }
    }

    /// Counts an answer.
    pub fn answer(&mut self, replica: &str, peer: Option<SocketAddr>, took_us: u64) {
        self.ok += 1;
        self.slowest_us = self.slowest_us.max(took_us);
        // Most answers come from a known replica: no allocation then.
        match self.by_replica.get_mut(replica) {
            Some(count) => *count += 1,
            None => drop(self.by_replica.insert(replica.to_owned(), 1)),
        }
        if let Some(peer) = peer {
            *self.peer.entry(peer).or_default() += 1;
        }
    }

    /// The slowest answered request in milliseconds.
    #[must_use]
    pub fn slowest_ms(&self) -> f64 {
        Duration::from_micros(self.slowest_us).as_secs_f64() * 1e3
    }

    /// Returns how many of the listed failures came in this step.
    #[must_use]
    pub fn failed_during(&self, step: &str) -> usize {
        self.failures.iter().filter(|failure| failure.during == step).count()
    }

    /// Adds another client's results.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        self.ok += other.ok;
        self.failed += other.failed;
        add(&mut self.errors, &other.errors);
        add(&mut self.by_replica, &other.by_replica);
        add(&mut self.resets, &other.resets);
        add(&mut self.peer, &other.peer);
        self.slowest_us = self.slowest_us.max(other.slowest_us);
        let room = LISTED.saturating_sub(self.failures.len());
        self.failures.extend(other.failures.iter().take(room).cloned());
        self
    }
}

fn add<K: Ord + Clone>(to: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (key, count) in from {
        *to.entry(key.clone()).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_add_up() {
        let failure = Failed {
            at: 1.5,
            took_us: 250,
            during: "connect".into(),
            error: "ECONNREFUSED".into(),
            destination: ([127, 0, 0, 1], 1234).into(),
            local: None,
        };
        let mut one = Summary::default();
        one.answer("a", Some(([127, 0, 0, 1], 1234).into()), 300);
        one.fail(failure);
        let both = one.clone().plus(&one);
        assert_eq!((both.ok, both.failed, both.slowest_us, both.failures.len()), (2, 2, 300, 2));
        assert_eq!((both.by_replica["a"], both.errors["ECONNREFUSED"]), (2, 2));
        assert_eq!((both.failed_during("connect"), both.failed_during("exchange")), (2, 0));
        let read_back: Summary = serde_json::from_str(&serde_json::to_string(&both).unwrap()).unwrap();
        assert_eq!(read_back.peer, both.peer);
    }
}
