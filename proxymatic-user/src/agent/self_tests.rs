//! When the self-test runs, and its result. Pure.

use std::time::{Duration, Instant};

use proxymatic_common::SourceCode;

use super::{desired_state::SelfTestService, effect::Effect, status::SelfTestStatus};
use crate::{plan::Services, self_test::KEY};

/// Whether and how the self-test runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SelfTest {
    /// The operator has switched it off.
    #[default]
    Off,
    /// It cannot run, for this reason.
    Impossible(String),
    /// It runs.
    On {
        /// The time between two runs.
        every: Duration,
        /// The port that its helper listens on.
        port: u16,
    },
}

/// The next run and the last results.
#[derive(Debug, Default)]
pub(super) struct SelfTests {
    mode: SelfTest,
    under_way: bool,
    next: Option<Instant>,
    succeeded: Option<Instant>,
    error: Option<String>,
}

impl SelfTests {
    pub(super) fn new(mode: SelfTest) -> Self {
        Self { mode, ..Self::default() }
    }

    /// Returns the service that the desired state needs.
    pub(super) const fn service(&self) -> SelfTestService {
        match self.mode {
            SelfTest::On { port, .. } => SelfTestService::Port(port),
            SelfTest::Off | SelfTest::Impossible(_) => SelfTestService::Off,
        }
    }

    /// Starts a self-test if one is due. `applied` are the services in the maps; `refused` is whether the kernel refused a
    /// write, and the missing service may come with the next plan.
    pub(super) fn start_if_due(&mut self, applied: &Services, refused: bool, now: Instant) -> Option<Effect> {
        if !self.is_due(now) {
            return None;
        }
        match applied.get(&KEY).map(|(source, _)| *source) {
            Some(SourceCode::SELF) => {
                self.under_way = true;
                return Some(Effect::SelfTest);
            }
            Some(_) => self.end(Err(format!("a source has a service on {KEY}, which is reserved for it")), now),
            None if refused => {}
            None => self.end(Err(format!("its service {KEY} is not served; look at the warnings")), now),
        }
        None
    }

    /// Notes that the worker did not take the order.
    pub(super) const fn not_started(&mut self) {
        self.under_way = false;
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let SelfTest::On { every, .. } = self.mode else { return false };
        if self.under_way || self.next.is_some_and(|next| now < next) {
            return false;
        }
        self.next = Some(now + every);
        true
    }

    /// Takes the result of a self-test.
    pub(super) fn end(&mut self, result: Result<(), String>, now: Instant) {
        self.under_way = false;
        match result {
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
        let (every_s, impossible) = match &self.mode {
            SelfTest::Off => (0, None),
            SelfTest::Impossible(reason) => (0, Some(reason.clone())),
            SelfTest::On { every, .. } => (every.as_secs(), None),
        };
        let succeeded_s = self.succeeded.map(|at| now.saturating_duration_since(at).as_secs_f64());
        SelfTestStatus { every_s, succeeded_s, error: self.error.clone(), impossible }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::self_test::service;

    const EVERY: Duration = Duration::from_secs(10);

    fn on() -> SelfTests {
        SelfTests::new(SelfTest::On { every: EVERY, port: 4711 })
    }

    #[test]
    fn self_test_is_due_at_once_and_after_each_period() {
        let (mut tests, now) = (on(), Instant::now());
        assert!(tests.is_due(now));
        assert!(!tests.is_due(now + EVERY / 2));
        assert!(tests.is_due(now + EVERY));
        tests.under_way = true;
        assert!(!tests.is_due(now + 5 * EVERY));
        tests.end(Ok(()), now + 5 * EVERY);
        assert!(tests.is_due(now + 5 * EVERY));
        assert!(!SelfTests::default().is_due(now));
    }

    #[test]
    fn failure_is_kept_until_a_success_while_its_age_grows() {
        let (mut tests, now) = (on(), Instant::now());
        tests.end(Ok(()), now);
        tests.end(Err("lost".into()), now + EVERY);
        let status = tests.status(now + EVERY);
        assert_eq!((status.succeeded_s, status.error.as_deref()), (Some(10.0), Some("lost")));
        tests.end(Ok(()), now + 2 * EVERY);
        let status = tests.status(now + 2 * EVERY);
        assert_eq!((status.succeeded_s, status.error), (Some(0.0), None));
    }

    #[test]
    fn self_test_starts_only_with_its_own_service_in_the_maps() {
        let now = Instant::now();
        let with = |source| Services::from([(KEY, (source, service(4711)))]);
        assert_eq!(on().start_if_due(&with(SourceCode::SELF), false, now), Some(Effect::SelfTest));
        for (applied, refused, error) in [
            (with(SourceCode::FILE), false, Some("which is reserved for it")),
            (Services::new(), false, Some("look at the warnings")),
            (Services::new(), true, None),
        ] {
            let mut tests = on();
            assert_eq!(tests.start_if_due(&applied, refused, now), None);
            let found = tests.status(now).error;
            assert_eq!(found.is_some(), error.is_some());
            assert!(error.is_none_or(|error| found.is_some_and(|found| found.ends_with(error))));
        }
    }
}
