//! Which of the configured Marathons is asked first: the one that leads, if it answers. Pure: the clock is an argument.

use std::time::{Duration, Instant};

/// How long a Marathon that failed is not asked first, though it leads: standbys give the same answers.
const SHUNNED: Duration = Duration::from_secs(60);

/// The order in which the Marathons are asked, by their place in the configuration.
#[derive(Debug)]
pub(super) struct EndpointOrder {
    first: usize,
    failed: Vec<Option<Instant>>,
    /// The last leader that an answer named, as it was named.
    leader: Option<String>,
}

impl EndpointOrder {
    pub(super) fn of(endpoints: usize) -> Self {
        Self { first: 0, failed: vec![None; endpoints], leader: None }
    }

    /// All of them, in the order in which to ask.
    pub(super) fn order(&self) -> Vec<usize> {
        let count = self.failed.len();
        (self.first..count).chain(0..self.first.min(count)).collect()
    }

    /// One did not answer, or not well.
    pub(super) fn failed(&mut self, index: usize, now: Instant) {
        self.failed[index] = Some(now);
    }

    /// One answered well, and named a leader, which may be one of them.
    pub(super) fn answered(&mut self, index: usize, leader: Option<(String, Option<usize>)>, now: Instant) {
        self.failed[index] = None;
        let shunned = |at: &usize| self.failed[*at].is_some_and(|failed| now < failed + SHUNNED);
        let known = leader.as_ref().and_then(|(_, index)| *index);
        self.first = known.filter(|at| !shunned(at)).unwrap_or(index);
        if let Some((name, _)) = leader {
            self.leader = Some(name);
        }
    }

    /// The last leader that an answer named.
    pub(super) fn leader(&self) -> Option<&str> {
        self.leader.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_answered_is_asked_first_and_the_leader_before_it() {
        let (mut turn, now) = (EndpointOrder::of(3), Instant::now());
        assert_eq!(turn.order(), [0, 1, 2]);
        turn.failed(0, now);
        turn.answered(1, None, now);
        assert_eq!(turn.order(), [1, 2, 0]);
        turn.answered(1, Some(("http://c".into(), Some(2))), now);
        assert_eq!(turn.order(), [2, 0, 1]);
        assert_eq!(turn.leader(), Some("http://c"));
        turn.answered(2, Some(("http://unknown".into(), None)), now);
        assert_eq!(turn.order(), [2, 0, 1]);
    }

    #[test]
    fn a_leader_that_cannot_be_reached_is_not_asked_first_for_a_while() {
        let (mut turn, now) = (EndpointOrder::of(2), Instant::now());
        let leader = || Some(("http://b".to_owned(), Some(1)));
        turn.failed(1, now);
        turn.answered(0, leader(), now);
        assert_eq!(turn.order(), [0, 1]);
        turn.answered(0, leader(), now + SHUNNED / 2);
        assert_eq!(turn.order(), [0, 1]);
        turn.answered(0, leader(), now + SHUNNED);
        assert_eq!(turn.order(), [1, 0]);
    }
}
