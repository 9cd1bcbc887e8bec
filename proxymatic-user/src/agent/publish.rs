//! From what the sources say to the maps: planned, carried out, and said to be so.

use std::time::{Duration, Instant};

use proxymatic_common::AgentState;

use super::{Agent, Inputs, desired_state};
use crate::{
    dataplane::{AgentReport, Dataplane, Error},
    plan::{MapOp, plan_changes},
};

/// How long the agent waits after the kernel refused a write before it plans again.
const RETRY: Duration = Duration::from_secs(1);

/// How often a write is tried before a plan is given up. The kernel takes what it needs for an entry without waiting, and
/// backs off from a bucket that another CPU is at: ENOMEM and EBUSY are often over at once.
const TRIES: usize = 3;

/// How long the agent waits for the first answer of every source before it publishes without those that are silent.
pub const PATIENCE: Duration = Duration::from_secs(30);

impl<D: Dataplane> Agent<D> {
    /// Whether it is known well enough what the maps should say.
    fn knows_enough(&self, now: Instant) -> bool {
        let answered = self.sources.values().filter(|heard| heard.snapshot.is_some()).count();
        let waited = self.began.is_some_and(|began| now.saturating_duration_since(began) >= PATIENCE);
        answered == self.sources.len() || (waited && answered > 0)
    }

    /// Plans and carries out, once enough is known. Whether anything was written, and all of it.
    pub(super) fn publish(&mut self, now: Instant) -> bool {
        let enough = self.knows_enough(now);
        if !enough && !self.restores() {
            return false;
        }
        let drained = self.take_drained();
        self.cgroups = self.named_cgroups();
        let (mut desired, warnings) = desired_state(Inputs {
            sources: self.sources.iter().map(|(source, heard)| (*source, heard.input())).collect(),
            addresses: &self.addresses,
            map_state: &self.tables,
            settings: &self.wishes,
            cgroups: self.cgroups.clone(),
            self_test: self.tested.service(),
            drained,
            parked: self.resting.clone(),
        });
        let planned = plan_changes(&desired, &self.tables, &std::mem::take(&mut self.settled));
        self.sweeps.leave(&planned.ops, &self.tables, now);
        self.sweeps.listeners.added(&planned.ops, now);
        self.warnings = warnings;
        self.warnings.extend(planned.warnings);
        self.refused = None;
        let turning = self.turning(&planned.ops);
        for op in &planned.ops {
            tracing::debug!("{op}");
            if let Err(error) = self.write(op) {
                // Every prefix of a plan serves every service: stopping here is safe.
                tracing::error!("{error}; planning again in {} s", RETRY.as_secs());
                self.refused = Some((error.to_string(), now + RETRY));
                return false;
            }
        }
        if self.drain_again() {
            return self.publish(now);
        }
        // What a silent source once said may be known only to the version that is to be replaced.
        if self.addresses_told
            && self.sources.values().all(|heard| heard.snapshot.is_some())
            && let Err(error) = self.plane.take_over()
        {
            tracing::error!("{error}; trying again in {} s", RETRY.as_secs());
            self.refused = Some((error.to_string(), now + RETRY));
            return false;
        }
        desired.services.retain(|key, _| !planned.incomplete.contains(key));
        self.settled = desired;
        self.tell_applied(planned.ops.len(), &turning);
        if enough {
            self.announce(AgentState::OK, true);
        }
        self.helpers.tell_ports(&self.tables);
        self.sweep(now);
        self.test(now);
        !planned.ops.is_empty()
    }

    /// Carries out one write, and follows it.
    pub(super) fn write(&mut self, op: &MapOp) -> Result<(), Error> {
        let mut outcome = self.plane.apply(op);
        for _ in 1..TRIES {
            if outcome.is_ok() {
                break;
            }
            outcome = self.plane.apply(op);
        }
        outcome.inspect(|()| self.tables.apply(op))
    }

    pub(super) fn announce(&mut self, state: AgentState, synced: bool) {
        // Who is leaving stays so, whatever is published meanwhile.
        if self.state != AgentState::TERMINATING {
            self.state = state;
        }
        self.plane.publish_status(AgentReport { agent: self.state, synced });
    }
}
