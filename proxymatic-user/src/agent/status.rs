//! The status of a running agent: what the maps do not hold. `status`, the metrics and the page read it.

use std::{net::SocketAddr, time::Instant};

use serde::{Deserialize, Serialize};

use super::latencies::Latencies;
use crate::{backend_probe::Outcome, model::Warning};

/// The status of a running agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// INITIALIZING, OK or TERMINATING.
    pub state: String,
    /// The agent's process id.
    pub pid: u32,
    /// The agent's version.
    pub version: String,
    /// Each source, and how fresh its answer is.
    pub sources: Vec<SourceStatus>,
    /// What the agent left out or what stands in its way.
    pub warnings: Vec<Warning>,
    /// Why the kernel refused the last write; absent if it did not.
    pub refused: Option<String>,
    /// The backends that are ejected until they answer.
    #[serde(default)]
    pub ejected: Vec<EjectedBackend>,
    /// The new backends that have not answered their first probe, the first hundred; absent if there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub awaited: Vec<AwaitedBackend>,
    /// The number of new backends that have not answered their first probe; for metrics, not in the JSON.
    #[serde(skip)]
    pub awaited_count: u64,
    /// How many first probes had which result; for metrics, not in the JSON.
    #[serde(skip)]
    pub first_probes: ProbeCounts,
    /// The result of the self-test.
    pub self_test: SelfTestStatus,
    /// How many connections of remote clients are tracked; absent if no interface is served, or before the first sweep.
    #[serde(default)]
    pub remote_connections: Option<u64>,
    /// When this status was made; not in the JSON.
    #[serde(skip)]
    pub at: Option<Instant>,
    /// How long it took from an answer to the last write; for metrics, not in the JSON.
    #[serde(skip)]
    pub published: Latencies,
}

/// The result of the self-test.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SelfTestStatus {
    /// Interval between self-tests in seconds; 0 if there are none.
    pub every_s: u64,
    /// Seconds since the last success; absent before the first.
    pub succeeded_s: Option<f64>,
    /// Why the last self-test failed; absent if it succeeded.
    pub error: Option<String>,
    /// Why there can be no self-test; absent if there can.
    pub impossible: Option<String>,
}

/// A backend that does not answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EjectedBackend {
    /// The name of its service.
    pub service: String,
    /// The address and port at which it listens.
    pub backend: SocketAddr,
    /// How long it has been ejected, in seconds.
    pub out_s: f64,
}

/// A new backend that has not answered its first probe, so that it is not used yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwaitedBackend {
    /// The name of its service.
    pub service: String,
    /// The address and port at which it listens.
    pub backend: SocketAddr,
    /// The Mesos task id, or what the source has in its place.
    pub task: String,
    /// Why it is not used yet, and until when.
    pub reason: String,
}

/// How many first probes of new backends had which result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeCounts {
    /// The backend accepted the connection.
    pub answered: u64,
    /// The backend refused the connection.
    pub refused: u64,
    /// Nothing came back, or the backend was unreachable.
    pub unanswered: u64,
    /// This host could not send the probe.
    pub failed: u64,
}

impl ProbeCounts {
    pub(super) const fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Answered => self.answered += 1,
            Outcome::Refused => self.refused += 1,
            Outcome::Unanswered => self.unanswered += 1,
            Outcome::Failed => self.failed += 1,
        }
    }
}

/// How fresh a source is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// The source's name.
    pub source: String,
    /// Seconds since the request whose answer is in use; absent before the first.
    pub answered_s: Option<f64>,
    /// The current failure; absent if there is none.
    pub trouble: Option<SourceFailure>,
    /// The file whose services are used until the source answers; absent if none are.
    #[serde(default)]
    pub restored: Option<RestoredFrom>,
    /// How many attempts have failed since the agent started; for metrics, not in the JSON.
    #[serde(skip)]
    pub failures: u64,
}

/// The file with the services of a source that has not answered since the agent started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RestoredFrom {
    /// The path of the file.
    pub path: String,
    /// Seconds since the source gave that answer; absent if this host's clock is behind that time.
    pub age_s: Option<f64>,
}

impl RestoredFrom {
    /// Returns the age in words.
    pub fn age(&self) -> String {
        match self.age_s {
            Some(age) => format!("of {} ago", in_words(age)),
            None => "of a time in the future by this host's clock".into(),
        }
    }
}

/// Returns a time in a unit that suits its length.
fn in_words(seconds: f64) -> String {
    let units = [(172_800.0, 86_400.0, "days"), (7_200.0, 3_600.0, "hours"), (120.0, 60.0, "min")];
    let unit = units.into_iter().find(|(least, ..)| seconds >= *least);
    let (size, name) = unit.map_or((1.0, "s"), |(_, size, name)| (size, name));
    format!("{:.0} {name}", (seconds / size).floor())
}

/// The failure of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFailure {
    /// The URL of the failed request, without credentials.
    pub url: String,
    /// One sentence.
    pub reason: String,
    /// How many attempts in a row have failed.
    pub attempts: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_has_the_unit_that_suits_it() {
        let age = |age_s| RestoredFrom { path: String::new(), age_s }.age();
        for (seconds, words) in [
            (0.4, "of 0 s ago"),
            (119.9, "of 119 s ago"),
            (180.0, "of 3 min ago"),
            (7_200.0, "of 2 hours ago"),
            (200_000.0, "of 2 days ago"),
        ] {
            assert_eq!(age(Some(seconds)), words);
        }
        assert_eq!(age(None), "of a time in the future by this host's clock");
    }
}
