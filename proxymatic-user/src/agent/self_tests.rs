//! When the self-test is made, and what came of it.

use std::time::{Duration, Instant};

use proxymatic_common::{AgentState, SourceCode};

use super::{Agent, SelfTestService};
use crate::{dataplane::Dataplane, self_test::KEY, surface::SelfTestStatus};

/// How the self-test is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SelfTest {
    /// Not at all: so the operator wishes.
    #[default]
    Off,
    /// It cannot be, for this reason.
    Impossible(String),
    /// It is.
    Made {
        /// How often.
        every: Duration,
        /// The port that its helper listens on.
        port: u16,
    },
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct SelfTestState {
    pub(super) how: SelfTest,
    under_way: bool,
    next: Option<Instant>,
    succeeded: Option<Instant>,
    error: Option<String>,
}

impl SelfTestState {
    /// Returns the service that the desired state needs.
    pub(super) const fn service(&self) -> SelfTestService {
        match self.how {
            SelfTest::Made { port, .. } => SelfTestService::Port(port),
            SelfTest::Off | SelfTest::Impossible(_) => SelfTestService::Off,
        }
    }

    fn due(&mut self, now: Instant) -> bool {
        let SelfTest::Made { every, .. } = self.how else { return false };
        if self.under_way || self.next.is_some_and(|next| now < next) {
            return false;
        }
        self.next = Some(now + every);
        true
    }

    pub(super) fn end(&mut self, answer: Result<(), String>, now: Instant) {
        self.under_way = false;
        match answer {
            Ok(()) => {
                if let Some(error) = self.error.take() {
                    tracing::info!("the self-test succeeds again; it had failed: {error}");
                }
                self.succeeded = Some(now);
            }
            Err(reason) => {
                if self.error.as_ref() != Some(&reason) {
                    tracing::error!("the self-test fails: {reason}");
                }
                self.error = Some(reason);
            }
        }
    }

    pub(super) fn status(&self, now: Instant) -> SelfTestStatus {
        let (every_s, impossible) = match &self.how {
            SelfTest::Off => (0, None),
            SelfTest::Impossible(reason) => (0, Some(reason.clone())),
            SelfTest::Made { every, .. } => (every.as_secs(), None),
        };
        let succeeded_s = self.succeeded.map(|at| now.saturating_duration_since(at).as_secs_f64());
        SelfTestStatus { every_s, succeeded_s, error: self.error.clone(), impossible }
    }
}

impl<D: Dataplane> Agent<D> {
    /// With a self-test.
    #[must_use]
    pub fn testing(mut self, how: SelfTest) -> Self {
        self.tested.how = how;
        self
    }

    /// Has the self-test made where it is time. Not before something is published: its service is a service like others.
    pub(super) fn test(&mut self, now: Instant) {
        if self.state != AgentState::OK || !self.tested.due(now) {
            return;
        }
        let ours = self.settled.services.get(&KEY).map(|(source, _)| *source);
        match ours {
            Some(SourceCode::SELF) => self.tested.under_way = self.helpers.test(),
            Some(_) => self.tested.end(Err(format!("a source has a service on {KEY}, which is reserved for it")), now),
            None if self.refused.is_some() => {}
            None => self.tested.end(Err(format!("its service {KEY} is not served; look at the warnings")), now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(10);

    fn made() -> SelfTestState {
        SelfTestState { how: SelfTest::Made { every: EVERY, port: 4711 }, ..SelfTestState::default() }
    }

    #[test]
    fn it_is_due_at_once_then_each_time_the_period_is_over_and_never_twice_at_once() {
        let (mut tested, now) = (made(), Instant::now());
        assert!(tested.due(now));
        assert!(!tested.due(now + EVERY / 2));
        assert!(tested.due(now + EVERY));
        tested.under_way = true;
        assert!(!tested.due(now + 5 * EVERY));
        tested.end(Ok(()), now + 5 * EVERY);
        assert!(tested.due(now + 5 * EVERY));
        assert!(!SelfTestState::default().due(now));
    }

    #[test]
    fn a_failure_is_kept_until_a_success_and_the_age_of_the_last_success_grows() {
        let (mut tested, now) = (made(), Instant::now());
        tested.end(Ok(()), now);
        tested.end(Err("lost".into()), now + EVERY);
        let status = tested.status(now + EVERY);
        assert_eq!((status.succeeded_s, status.error.as_deref()), (Some(10.0), Some("lost")));
        tested.end(Ok(()), now + 2 * EVERY);
        let status = tested.status(now + 2 * EVERY);
        assert_eq!((status.succeeded_s, status.error), (Some(0.0), None));
    }
}
