//! The order in which the endpoints of a server are tried: the leader first, if it responds. Pure: the clock is an
//! argument.

use std::time::{Duration, Instant};

/// How long an endpoint that failed is not tried first although it leads: standbys give the same answers.
const SHUNNED: Duration = Duration::from_secs(60);

/// The order in which the endpoints are tried, by their index in the configuration.
#[derive(Debug)]
pub(super) struct EndpointOrder {
    first: usize,
    failed: Vec<Option<Instant>>,
    /// The last leader that a response named, as it was named.
    leader: Option<String>,
}

impl EndpointOrder {
    pub(super) fn new(endpoints: usize) -> Self {
        Self { first: 0, failed: vec![None; endpoints], leader: None }
    }

    /// Returns all endpoints, in the order in which to try them.
    pub(super) fn order(&self) -> Vec<usize> {
        let count = self.failed.len();
        (self.first..count).chain(0..self.first.min(count)).collect()
    }

    /// Notes that an endpoint failed.
    pub(super) fn failed(&mut self, index: usize, now: Instant) {
        self.failed[index] = Some(now);
    }

    /// Notes that an endpoint responded, and the leader that it named: the name, and the endpoint if it is one of them.
    pub(super) fn responded(&mut self, index: usize, leader: Option<(String, Option<usize>)>, now: Instant) {
        self.failed[index] = None;
        let shunned = |at: &usize| self.failed[*at].is_some_and(|failed| now < failed + SHUNNED);
        let known = leader.as_ref().and_then(|(_, index)| *index);
        self.first = known.filter(|at| !shunned(at)).unwrap_or(index);
        if let Some((name, _)) = leader {
            self.leader = Some(name);
        }
    }

    /// Returns the last leader that a response named.
    pub(super) fn leader(&self) -> Option<&str> {
        self.leader.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leader_is_tried_first_and_then_the_last_to_respond() {
        let (mut order, now) = (EndpointOrder::new(3), Instant::now());
        assert_eq!(order.order(), [0, 1, 2]);
        order.failed(0, now);
        order.responded(1, None, now);
        assert_eq!(order.order(), [1, 2, 0]);
        order.responded(1, Some(("http://c".into(), Some(2))), now);
        assert_eq!(order.order(), [2, 0, 1]);
        assert_eq!(order.leader(), Some("http://c"));
        order.responded(2, Some(("http://unknown".into(), None)), now);
        assert_eq!(order.order(), [2, 0, 1]);
    }

    #[test]
    fn unreachable_leader_is_not_tried_first_for_a_while() {
        let (mut order, now) = (EndpointOrder::new(2), Instant::now());
        let leader = || Some(("http://b".to_owned(), Some(1)));
        order.failed(1, now);
        order.responded(0, leader(), now);
        assert_eq!(order.order(), [0, 1]);
        order.responded(0, leader(), now + SHUNNED / 2);
        assert_eq!(order.order(), [0, 1]);
        order.responded(0, leader(), now + SHUNNED);
        assert_eq!(order.order(), [1, 0]);
    }
}
