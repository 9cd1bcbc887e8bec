//! Runs scenarios of an agent on a data plane in memory: without faults, and with one write in ten refused.

use std::{
    ops::{Deref, DerefMut},
    time::Instant,
};

use proxymatic_user::{
    agent::{Agent, Event},
    dataplane::{Faults, Memory},
    source::Report,
};

/// No write is refused.
pub(crate) const NO_FAULTS: Faults = Faults { one_in: 0, seed: 0 };

/// How many rounds there are with faults; each has others.
const ROUNDS: u64 = 24;

/// Runs a scenario without faults, and then with one write in ten refused. All its assertions must hold each time.
pub(crate) fn with_faults_and_without(scenario: impl Fn(Faults)) {
    scenario(NO_FAULTS);
    for round in 1..=ROUNDS {
        // The seeds are far apart, and odd as the sequence requires.
        let faults = Faults { one_in: 10, seed: round.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| scenario(faults)));
        if let Err(panic) = outcome {
            // These faults reproduce the failure.
            std::panic::resume_unwind(Box::new(format!("with {faults:?}: {}", message(&*panic))));
        }
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// An agent whose refused writes are tried again without a lapse of time: the source repeats its last answer, as Marathon
/// may do at any moment. Another test covers the retries of the agent itself.
pub(crate) struct Driven {
    agent: Agent<Memory>,
    last: Option<Report>,
}

impl Driven {
    pub(crate) fn new(agent: Agent<Memory>) -> Self {
        Self { agent, last: None }
    }

    pub(crate) fn handle(&mut self, event: Event, now: Instant) -> bool {
        if let Event::Source(report @ Report::Snapshot { .. }) = &event {
            self.last = Some(report.clone());
        }
        let goes_on = self.agent.handle(event, now);
        while self.agent.status(now).refused.is_some() {
            match self.last.clone() {
                Some(report) => self.agent.handle(Event::Source(report), now),
                // The agent itself tries again with a restored snapshot.
                None => return goes_on,
            };
        }
        goes_on
    }
}

impl Deref for Driven {
    type Target = Agent<Memory>;

    fn deref(&self) -> &Self::Target {
        &self.agent
    }
}

impl DerefMut for Driven {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.agent
    }
}
