//! Which backends are kept away from clients because they do not answer. Pure: the kernel ejects, the agent only keeps it
//! so until the backend answers a probe.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// How far ahead an ejection is renewed, each second. A dead agent must not leave a backend out for longer than this.
pub(super) const AHEAD: Duration = Duration::from_secs(3);

/// How long a backend has been out before it is taken out of the slots too.
const RESTS_AFTER: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
struct Watched {
    generation: u32,
    service: u32,
    since: Instant,
}

/// The backends that are watched until they answer.
#[derive(Debug, Default)]
pub(super) struct Ejections {
    watched: BTreeMap<u32, Watched>,
}

impl Ejections {
    /// Watches a backend. False where that is so already.
    pub(super) fn watch(&mut self, backend: u32, generation: u32, service: u32, now: Instant) -> bool {
        let before = self.watched.get(&backend);
        if before.is_some_and(|before| before.generation == generation) {
            return false;
        }
        self.watched.insert(backend, Watched { generation, service, since: now });
        true
    }

    /// A backend has answered: for how long it was out. `None` where nobody waited for it.
    pub(super) fn answered(&mut self, backend: u32, generation: u32, now: Instant) -> Option<Duration> {
        let watched = self.watched.get(&backend).filter(|watched| watched.generation == generation)?;
        let out = now.saturating_duration_since(watched.since);
        self.watched.remove(&backend);
        Some(out)
    }

    /// Watches no longer what is not as it was, by id and generation. Gives the ids.
    pub(super) fn forget(&mut self, is: impl Fn(u32, u32) -> bool) -> Vec<u32> {
        self.watched.extract_if(.., |id, watched| !is(*id, watched.generation)).map(|(id, _)| id).collect()
    }

    /// Those that are to stay out: the longest watched first, at most half of the backends that a service has. The others
    /// come back when the kernel lets them, for what half of them do not bear the rest must.
    pub(super) fn out(&self, backends_of: impl Fn(u32) -> usize) -> Vec<u32> {
        let mut watched: Vec<_> = self.watched.iter().collect();
        watched.sort_by_key(|(id, watched)| (watched.service, watched.since, **id));
        let of_service = watched.chunk_by(|a, b| a.1.service == b.1.service);
        let out = of_service.flat_map(|of| of[..of.len().min(backends_of(of[0].1.service) / 2)].iter());
        out.map(|(id, _)| **id).collect()
    }

    /// All that are watched, each with for how long.
    pub(super) fn watched(&self, now: Instant) -> impl Iterator<Item = (u32, Duration)> {
        self.watched.iter().map(move |(id, watched)| (*id, now.saturating_duration_since(watched.since)))
    }

    /// Of those that are out, the ones that have been for long.
    pub(super) fn resting(&self, out: &[u32], now: Instant) -> BTreeSet<u32> {
        let long = |id: &&u32| {
            let since = self.watched.get(id).map(|watched| now.saturating_duration_since(watched.since));
            since.is_some_and(|since| since >= RESTS_AFTER)
        };
        out.iter().filter(long).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn watching(backends: &[u32]) -> (Ejections, Instant) {
        let (mut ejected, now) = (Ejections::default(), Instant::now());
        for (nth, id) in backends.iter().enumerate() {
            assert!(ejected.watch(*id, 1, 0, now + SECOND * nth as u32));
        }
        (ejected, now)
    }

    #[test]
    fn a_backend_is_watched_once_for_each_owner() {
        let (mut ejected, now) = watching(&[7]);
        assert!(!ejected.watch(7, 1, 0, now));
        assert!(ejected.watch(7, 2, 0, now + SECOND), "the id has a new owner");
        assert_eq!(ejected.answered(7, 1, now + SECOND), None, "the answer of the one before");
        assert_eq!(ejected.answered(7, 2, now + 4 * SECOND), Some(3 * SECOND));
        assert_eq!(ejected.answered(7, 2, now + 5 * SECOND), None);
    }

    #[test]
    fn at_most_half_of_a_service_stay_out_and_those_first_that_were_first() {
        let (mut ejected, now) = watching(&[5, 4, 3]);
        ejected.watch(9, 1, 1, now);
        let of = |all: usize| move |service: u32| if service == 0 { all } else { 1 };
        assert_eq!(ejected.out(of(6)), [5, 4, 3], "the only backend of another service stays in");
        assert_eq!(ejected.out(of(5)), [5, 4]);
        assert_eq!(ejected.out(of(3)), [5]);
        assert_eq!(ejected.out(of(1)), [] as [u32; 0]);
        assert_eq!(ejected.out(of(0)), [] as [u32; 0]);
    }

    #[test]
    fn what_is_out_for_ten_seconds_rests() {
        let (ejected, now) = watching(&[1, 2, 3]);
        let out = ejected.out(|_| 4);
        assert_eq!(out, [1, 2]);
        assert!(ejected.resting(&out, now + 9 * SECOND).is_empty());
        assert_eq!(ejected.resting(&out, now + 10 * SECOND), [1].into());
        assert_eq!(ejected.resting(&out, now + 60 * SECOND), [1, 2].into(), "the third may not");
    }

    #[test]
    fn what_has_another_owner_or_is_gone_is_forgotten() {
        let (mut ejected, now) = watching(&[1, 2, 3]);
        assert_eq!(ejected.forget(|id, generation| id != 2 && generation == 1), [2]);
        assert_eq!(ejected.answered(2, 1, now), None);
        assert!(ejected.answered(3, 1, now).is_some());
    }
}
