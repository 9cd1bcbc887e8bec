//! The clock of a source: that of the machine, or one that its owner moves, so that a recording keeps its own times.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// The clock of a source. By default it is that of the machine.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Manual>>);

/// A clock that only moves by [`ManualClock::move_to`].
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Manual>);

#[derive(Debug)]
struct Manual {
    state: Mutex<State>,
    moved: Notify,
}

#[derive(Debug)]
struct State {
    now: Instant,
    /// The deadlines of all waits, by the number of the wait.
    waits: BTreeMap<u64, Instant>,
    next: u64,
}

impl Clock {
    /// Returns the time.
    pub(super) fn now(&self) -> Instant {
        self.0.as_ref().map_or_else(Instant::now, |manual| manual.lock().now)
    }

    /// Waits until a time.
    pub(super) async fn sleep_until(&self, deadline: Instant) {
        match &self.0 {
            None => tokio::time::sleep_until(deadline.into()).await,
            Some(manual) => manual.sleep_until(deadline).await,
        }
    }

    /// Waits for a time.
    pub(super) async fn sleep(&self, time: Duration) {
        self.sleep_until(self.now() + time).await;
    }

    /// Returns the output of a future; `None` if it has none before the deadline.
    pub(super) async fn timeout_at<F: Future>(&self, deadline: Instant, future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = self.sleep_until(deadline) => None,
        }
    }
}

impl ManualClock {
    /// Returns a clock that shows the current time of the machine.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a default that differs at each call would surprise")]
    pub fn new() -> Self {
        let state = State { now: Instant::now(), waits: BTreeMap::new(), next: 0 };
        Self(Arc::new(Manual { state: Mutex::new(state), moved: Notify::new() }))
    }

    /// Returns the clock for a source.
    #[must_use]
    pub fn clock(&self) -> Clock {
        Clock(Some(Arc::clone(&self.0)))
    }

    /// Returns the time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.0.lock().now
    }

    /// Moves the clock forward to a time, and wakes all waits. It never moves back.
    pub fn move_to(&self, time: Instant) {
        let mut state = self.0.lock();
        state.now = state.now.max(time);
        drop(state);
        self.0.moved.notify_waiters();
    }

    /// Returns the deadlines of all waits.
    #[must_use]
    pub fn waits(&self) -> Vec<Instant> {
        self.0.lock().waits.values().copied().collect()
    }
}

impl Manual {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn sleep_until(&self, deadline: Instant) {
        let wait = Wait::new(self, deadline);
        loop {
            let mut moved = std::pin::pin!(self.moved.notified());
            // Before the look at the time, so that no move is missed.
            moved.as_mut().enable();
            if wait.is_over() {
                return;
            }
            moved.await;
        }
    }
}

/// A wait, which is noted until it is dropped.
struct Wait<'a> {
    manual: &'a Manual,
    number: u64,
    deadline: Instant,
}

impl<'a> Wait<'a> {
    fn new(manual: &'a Manual, deadline: Instant) -> Self {
        let mut state = manual.lock();
        state.next += 1;
        let number = state.next;
        state.waits.insert(number, deadline);
        Self { manual, number, deadline }
    }

    fn is_over(&self) -> bool {
        self.manual.lock().now >= self.deadline
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.manual.lock().waits.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn wait_ends_when_the_clock_has_reached_its_deadline() {
        let manual = ManualClock::new();
        let (clock, start) = (manual.clock(), manual.now());
        let waits = tokio::spawn(async move { clock.sleep(Duration::from_secs(600)).await });
        while manual.waits().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(manual.waits(), [start + Duration::from_secs(600)]);
        manual.move_to(start + Duration::from_secs(599));
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        manual.move_to(start + Duration::from_secs(600));
        waits.await.unwrap();
        assert_eq!((manual.waits(), manual.now()), (Vec::new(), start + Duration::from_secs(600)));
    }

    #[tokio::test]
    async fn future_that_is_ready_has_no_timeout() {
        let clock = Clock::default();
        assert_eq!(clock.timeout_at(clock.now() + Duration::from_secs(60), async { 1 }).await, Some(1));
        assert_eq!(clock.timeout_at(clock.now(), std::future::pending::<()>()).await, None);
    }
}
