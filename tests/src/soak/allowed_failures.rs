//! Which failures are allowed, and why. Pure.
//!
//! A crash of a replica causes failures that no agent could prevent:
//!
//! - TCP, `open`: a request that began before the replica was dead and failed after the kill began.
//! - TCP, `found out`: one connect on the host, the first that is refused afterwards; `at once`: connects that began
//!   before that refusal. Then the replica is ejected.
//! - TCP, `stalled`: connects that were refused later, if the machine stalled before the agent had removed the replica:
//!   meanwhile the ejection may have ended.
//! - UDP, `not told`: datagrams whose wait overlaps the time from the kill until the agent has removed the replica: no
//!   hook sees whether a datagram is answered.
//!
//! Every other failure is a fault. A reset of a UDP socket whose replica is gone (ECONNABORTED, or EDESTADDRREQ if it
//! sends first) is no failure: its program connects again and is answered. A reset for a live replica is a fault.

use std::collections::BTreeSet;

use crate::summary::{Failed, Summary};

/// A replica that ended while clients ran. Times are seconds since the epoch.
#[derive(Debug, Clone)]
pub(super) struct EndedReplica {
    /// The port of its service.
    pub(super) port: u16,
    /// The name with which it answered.
    pub(super) name: String,
    /// When it was killed; `None` if it was drained and stopped.
    pub(super) killed: Option<Killed>,
}

/// The times of a kill.
#[derive(Debug, Clone, Copy)]
pub(super) struct Killed {
    /// Before the signal.
    pub(super) begun: f64,
    /// The process has ended.
    pub(super) dead: f64,
    /// The agent has removed it.
    pub(super) out: f64,
    /// Whether the machine stalled between the kill and the removal.
    pub(super) stalled: bool,
}

/// The verdict on a client's failures.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Judgement {
    /// The reason of each allowed failure.
    pub(super) allowed: Vec<&'static str>,
    /// The faults, in words.
    pub(super) faults: Vec<String>,
}

/// Judges the failures of clients of the TCP service on this port.
pub(super) fn tcp(port: u16, seen: &Summary, ended: &[EndedReplica]) -> Judgement {
    let mut judged = unlisted(seen);
    let kills: Vec<_> = ended.iter().filter(|it| it.port == port).filter_map(|it| it.killed).collect();
    let mut found_out: Vec<Option<f64>> = vec![None; kills.len()];
    let mut failures: Vec<_> = seen.failures.iter().collect();
    // In the order in which they ended.
    failures.sort_by(|a, b| end(a).total_cmp(&end(b)));
    for failure in failures {
        let open = kills.iter().any(|kill| failure.at <= kill.dead && end(failure) >= kill.begun);
        let refused = failure.during == "connect" && failure.error == "ECONNREFUSED";
        let mut of = kills
            .iter()
            .zip(&mut found_out)
            .filter(|(kill, _)| refused && failure.at > kill.dead && failure.at <= kill.out);
        judged.take(
            failure,
            if open {
                Some("open")
            } else {
                of.find_map(|(kill, first)| match *first {
                    None => {
                        *first = Some(end(failure));
                        Some("found out")
                    }
                    Some(known) if failure.at < known => Some("at once"),
                    Some(_) => kill.stalled.then_some("stalled"),
                })
            },
        );
    }
    judged
}

/// Judges the failures of clients of the UDP service on this port.
pub(super) fn udp(port: u16, seen: &Summary, ended: &[EndedReplica]) -> Judgement {
    let mut judged = unlisted(seen);
    let ended: Vec<_> = ended.iter().filter(|it| it.port == port).collect();
    for failure in &seen.failures {
        let mut kills = ended.iter().filter_map(|it| it.killed);
        let not_told = kills.any(|kill| failure.at <= kill.out && end(failure) >= kill.begun);
        judged.take(failure, not_told.then_some("not told"));
    }
    let mut gone: BTreeSet<&str> = ended.iter().map(|it| it.name.as_str()).collect();
    // A socket that was reset before its first reply has no replica name.
    gone.extend((!ended.is_empty()).then_some(""));
    for name in seen.resets.keys().filter(|name| !gone.contains(name.as_str())) {
        judged.faults.push(format!("a socket was reset although {name} is alive"));
    }
    judged
}

/// A failure that was counted but not listed cannot be allowed.
fn unlisted(seen: &Summary) -> Judgement {
    let more = seen.failed.saturating_sub(seen.failures.len() as u64);
    let faults = (more > 0).then(|| format!("{more} failures more than are listed: {:?}", seen.errors));
    Judgement { faults: faults.into_iter().collect(), ..Judgement::default() }
}

impl Judgement {
    fn take(&mut self, failure: &Failed, reason: Option<&'static str>) {
        match reason {
            Some(reason) => self.allowed.push(reason),
            None => self.faults.push(format!("{failure:?}")),
        }
    }
}

fn end(failure: &Failed) -> f64 {
    failure.at + failure.took_us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILL: Killed = Killed { begun: 10.0, dead: 10.1, out: 11.0, stalled: false };

    fn ended(killed: Option<Killed>) -> Vec<EndedReplica> {
        vec![EndedReplica { port: 1, name: "a".into(), killed }]
    }

    /// Failures by begin in seconds, duration in milliseconds, and step.
    fn seen(failures: &[(f64, u64, &str)]) -> Summary {
        let mut seen = Summary::default();
        for (at, took_ms, during) in failures {
            let (during, error) = ((*during).to_owned(), "ECONNREFUSED".to_owned());
            let destination = ([127, 0, 0, 1], 1).into();
            seen.fail(Failed { at: *at, took_us: took_ms * 1000, during, error, destination, local: None });
        }
        seen
    }

    #[test]
    fn killed_replica_allows_open_failures_and_one_connect() {
        let saw = seen(&[(9.9, 150, "exchange"), (10.2, 1, "connect"), (10.3, 1, "connect")]);
        let judged = tcp(1, &saw, &ended(Some(KILL)));
        assert_eq!((judged.allowed, judged.faults.len()), (vec!["open", "found out"], 1));
    }

    #[test]
    fn connects_begun_before_the_first_refusal_are_allowed() {
        let saw = seen(&[(10.2, 10, "connect"), (10.205, 10, "connect"), (10.211, 1, "connect")]);
        let judged = tcp(1, &saw, &ended(Some(KILL)));
        assert_eq!((judged.allowed, judged.faults.len()), (vec!["found out", "at once"], 1));
    }

    #[test]
    fn stalled_machine_allows_more_refused_connects() {
        let stalled = ended(Some(Killed { stalled: true, ..KILL }));
        let judged = tcp(1, &seen(&[(10.2, 1, "connect"), (10.9, 1, "connect"), (11.1, 1, "connect")]), &stalled);
        assert_eq!((judged.allowed, judged.faults.len()), (vec!["found out", "stalled"], 1));
    }

    #[test]
    fn killed_replica_allows_one_refused_connect() {
        let both = [ended(Some(KILL)), ended(Some(KILL))].concat();
        let judged = tcp(1, &seen(&[(10.2, 1, "connect"), (10.3, 1, "connect"), (10.4, 1, "connect")]), &both);
        assert_eq!((judged.allowed, judged.faults.len()), (vec!["found out", "found out"], 1));
    }

    #[test]
    fn failures_elsewhere_later_or_after_a_stop_are_not_allowed() {
        for (port, at, killed) in [(2, 10.2, Some(KILL)), (1, 11.1, Some(KILL)), (1, 10.2, None)] {
            for judge in [tcp, udp] {
                let judged = judge(port, &seen(&[(at, 1, "connect")]), &ended(killed));
                assert_eq!((judged.allowed.len(), judged.faults.len()), (0, 1), "{port} {at} {killed:?}");
            }
        }
    }

    #[test]
    fn datagrams_to_a_killed_replica_may_fail_until_agent_acts() {
        let judged = udp(1, &seen(&[(9.0, 1500, "answer"), (10.9, 500, "answer")]), &ended(Some(KILL)));
        assert_eq!(judged, Judgement { allowed: vec!["not told"; 2], faults: Vec::new() });
    }

    #[test]
    fn reset_of_a_live_replica_is_not_allowed() {
        let mut saw = Summary::default();
        saw.resets.insert("a".into(), 2);
        assert_eq!(udp(1, &saw, &ended(None)).faults.len(), 0);
        assert_eq!(udp(1, &saw, &[]).faults.len(), 1);
        saw.resets.insert("b".into(), 1);
        assert_eq!(udp(1, &saw, &ended(None)).faults.len(), 1);
    }

    #[test]
    fn unlisted_failure_is_not_allowed() {
        let mut saw = seen(&[(10.2, 1, "connect")]);
        saw.failed += 3;
        assert_eq!(tcp(1, &saw, &ended(Some(KILL))).faults.len(), 1);
    }
}
