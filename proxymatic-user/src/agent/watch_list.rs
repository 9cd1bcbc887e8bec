//! The backends that are probed until they answer, and which of them stay ejected. Pure: the kernel ejects a backend; the
//! agent renews the ejection until the backend answers a probe.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// How long each renewal lasts; there is one each second. If the agent dies, an ejection ends after this time.
pub(super) const AHEAD: Duration = Duration::from_secs(3);

/// How long a backend is ejected before it is parked.
const PARKED_AFTER: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
struct Watched {
    generation: u32,
    service: u32,
    since: Instant,
}

/// The backends that are probed until they answer.
#[derive(Debug, Default)]
pub(super) struct WatchList {
    watched: BTreeMap<u32, Watched>,
}

impl WatchList {
    /// Adds a backend. Returns false if it is on the list already.
    pub(super) fn watch(&mut self, backend: u32, generation: u32, service: u32, now: Instant) -> bool {
        let before = self.watched.get(&backend);
        if before.is_some_and(|before| before.generation == generation) {
            return false;
        }
        self.watched.insert(backend, Watched { generation, service, since: now });
        true
    }

    /// Removes a backend that has answered. Returns how long it was on the list, or `None` if it was not.
    pub(super) fn answered(&mut self, backend: u32, generation: u32, now: Instant) -> Option<Duration> {
        let watched = self.watched.get(&backend).filter(|watched| watched.generation == generation)?;
        let out = now.saturating_duration_since(watched.since);
        self.watched.remove(&backend);
        Some(out)
    }

    /// Removes the backends for which `is_current`, called with id and generation, returns false. Returns their ids.
    pub(super) fn forget(&mut self, is_current: impl Fn(u32, u32) -> bool) -> Vec<u32> {
        self.watched.extract_if(.., |id, watched| !is_current(*id, watched.generation)).map(|(id, _)| id).collect()
    }

    /// Returns the backends that stay ejected: at most half of the `backends_of` each service, those watched longest first.
    /// The ejections of the others are not renewed, because the remaining half must be able to carry the load.
    pub(super) fn out(&self, backends_of: impl Fn(u32) -> usize) -> Vec<u32> {
        let mut watched: Vec<_> = self.watched.iter().collect();
        watched.sort_by_key(|(id, watched)| (watched.service, watched.since, **id));
        let of_service = watched.chunk_by(|a, b| a.1.service == b.1.service);
        let out = of_service.flat_map(|of| of[..of.len().min(backends_of(of[0].1.service) / 2)].iter());
        out.map(|(id, _)| **id).collect()
    }

    /// Returns all backends on the list, each with how long it has been there.
    pub(super) fn watched(&self, now: Instant) -> impl Iterator<Item = (u32, Duration)> {
        self.watched.iter().map(move |(id, watched)| (*id, now.saturating_duration_since(watched.since)))
    }

    /// Returns those of `out` that have been on the list for long enough to be parked.
    pub(super) fn parked(&self, out: &[u32], now: Instant) -> BTreeSet<u32> {
        let long = |id: &&u32| {
            let since = self.watched.get(id).map(|watched| now.saturating_duration_since(watched.since));
            since.is_some_and(|since| since >= PARKED_AFTER)
        };
        out.iter().filter(long).copied().collect()
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn watching(backends: &[u32]) -> (WatchList, Instant) {
        let (mut list, now) = (WatchList::default(), Instant::now());
        for (nth, id) in backends.iter().enumerate() {
            assert!(list.watch(*id, 1, 0, now + SECOND * nth as u32));
        }
        (list, now)
    }

    #[test]
    fn backend_is_watched_once_per_generation() {
        let (mut list, now) = watching(&[7]);
        assert!(!list.watch(7, 1, 0, now));
        assert!(list.watch(7, 2, 0, now + SECOND), "the id has a new owner");
        assert_eq!(list.answered(7, 1, now + SECOND), None, "the answer of the earlier owner");
        assert_eq!(list.answered(7, 2, now + 4 * SECOND), Some(3 * SECOND));
        assert_eq!(list.answered(7, 2, now + 5 * SECOND), None);
    }

    #[test]
    fn at_most_half_of_a_service_stay_out_longest_watched_first() {
        let (mut list, now) = watching(&[5, 4, 3]);
        list.watch(9, 1, 1, now);
        let of = |all: usize| move |service: u32| if service == 0 { all } else { 1 };
        assert_eq!(list.out(of(6)), [5, 4, 3], "the only backend of another service stays in");
        assert_eq!(list.out(of(5)), [5, 4]);
        assert_eq!(list.out(of(3)), [5]);
        assert_eq!(list.out(of(1)), [] as [u32; 0]);
        assert_eq!(list.out(of(0)), [] as [u32; 0]);
    }

    #[test]
    fn backend_that_is_out_for_10_s_is_parked() {
        let (list, now) = watching(&[1, 2, 3]);
        let out = list.out(|_| 4);
        assert_eq!(out, [1, 2]);
        assert!(list.parked(&out, now + 9 * SECOND).is_empty());
        assert_eq!(list.parked(&out, now + 10 * SECOND), [1].into());
        assert_eq!(list.parked(&out, now + 60 * SECOND), [1, 2].into(), "the third does not stay out");
    }

    #[test]
    fn backend_with_another_generation_or_gone_is_forgotten() {
        let (mut list, now) = watching(&[1, 2, 3]);
        assert_eq!(list.forget(|id, generation| id != 2 && generation == 1), [2]);
        assert_eq!(list.answered(2, 1, now), None);
        assert!(list.answered(3, 1, now).is_some());
    }
}
