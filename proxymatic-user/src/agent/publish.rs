//! Plans and applies: what was applied last, what the kernel refused, and what rests before its id is used again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::latencies::Latencies;
use crate::{
    dataplane::{Counters, Error, MapWriter, Takeover},
    model::{ServiceKey, Warning},
    plan::{Desired, MapOp, MapState, Plan, Quarantine, Services, plan_changes},
};

/// The time until the next plan after the kernel refused a write.
const RETRY: Duration = Duration::from_secs(1);

/// How often a write is tried before the plan is given up. ENOMEM and EBUSY are often over at once: the kernel allocates a
/// map entry without waiting, and backs off from a bucket that another CPU has locked.
const TRIES: usize = 3;

/// The results of the last plan.
#[derive(Debug, Default)]
pub(super) struct Publisher {
    /// The desired state that the maps are known to hold; empty if the last plan was not applied completely.
    applied: Desired,
    /// The ids of the cgroups that are named anywhere, by path, as of the last plan.
    cgroups: BTreeMap<String, u64>,
    warnings: Vec<Warning>,
    /// Why the last write was refused, and when to plan again.
    refused: Option<(String, Instant)>,
    quarantine: Quarantine,
    /// How long it took from an answer of a source to the last write.
    latencies: Latencies,
}

impl Publisher {
    /// Plans the writes for a desired state. `warnings` are those about what it leaves out.
    pub(super) fn plan(&mut self, desired: &Desired, warnings: Vec<Warning>, map_state: &MapState) -> Plan {
        let mut plan = plan_changes(desired, map_state, &std::mem::take(&mut self.applied));
        self.cgroups.clone_from(&desired.cgroups);
        self.warnings = warnings;
        self.warnings.append(&mut plan.warnings);
        self.refused = None;
        plan
    }

    /// Applies the writes of a plan. Returns false if the kernel refused one.
    pub(super) fn apply(
        &mut self,
        ops: &[MapOp],
        plane: &mut impl MapWriter,
        map_state: &mut MapState,
        now: Instant,
    ) -> bool {
        for op in ops {
            tracing::debug!("{op}");
            if let Err(error) = write(op, plane, map_state) {
                // It is safe to stop here: every service works after any number of a plan's writes.
                tracing::error!("{error}; planning again in {} s", RETRY.as_secs());
                self.refused = Some((error.to_string(), now + RETRY));
                return false;
            }
        }
        true
    }

    /// Takes over from another map ABI version, if there is one. Returns false if the kernel refused that.
    pub(super) fn take_over(&mut self, plane: &mut impl Takeover, now: Instant) -> bool {
        let Err(error) = plane.take_over() else { return true };
        tracing::error!("{error}; trying again in {} s", RETRY.as_secs());
        self.refused = Some((error.to_string(), now + RETRY));
        false
    }

    /// Notes that the maps hold this desired state, apart from the `incomplete` services.
    pub(super) fn set_applied(&mut self, mut desired: Desired, incomplete: &BTreeSet<ServiceKey>) {
        desired.services.retain(|key, _| !incomplete.contains(key));
        self.applied = desired;
    }

    /// Releases ids and slots that have been in quarantine for long enough. `before` is called before each write.
    pub(super) fn release<D: MapWriter + Counters>(
        &mut self,
        plane: &mut D,
        map_state: &mut MapState,
        now: Instant,
        mut before: impl FnMut(&MapOp, &MapState),
    ) {
        for op in self.quarantine.release(map_state, |backend| plane.active(backend), now) {
            tracing::debug!("{op}");
            before(&op, map_state);
            if let Err(error) = write(&op, plane, map_state) {
                // The next tick tries again. The rest of this tick does not depend on it.
                tracing::error!("{error}");
                break;
            }
        }
    }

    /// Records how long it took from an answer of a source to the last write.
    pub(super) fn record_latency(&mut self, latency: Duration) {
        self.latencies.record(latency);
    }

    /// Returns the services that the maps are known to hold.
    pub(super) const fn services(&self) -> &Services {
        &self.applied.services
    }

    pub(super) const fn cgroups(&self) -> &BTreeMap<String, u64> {
        &self.cgroups
    }

    pub(super) fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    pub(super) const fn latencies(&self) -> Latencies {
        self.latencies
    }

    /// Returns why the kernel refused the last write; `None` if it did not.
    pub(super) fn refused(&self) -> Option<&str> {
        self.refused.as_ref().map(|(reason, _)| reason.as_str())
    }

    /// Returns when to plan again after a refused write; `None` if no write was refused.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.refused.as_ref().map(|(_, at)| *at)
    }
}

/// Carries out one write and applies it to the map state.
fn write(op: &MapOp, plane: &mut impl MapWriter, map_state: &mut MapState) -> Result<(), Error> {
    let mut outcome = plane.apply(op);
    for _ in 1..TRIES {
        if outcome.is_ok() {
            break;
        }
        outcome = plane.apply(op);
    }
    outcome.inspect(|()| map_state.apply(op))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dataplane::{Faults, Memory},
        plan::Capacity,
    };

    fn memory(one_in: u64) -> Memory {
        Memory::new(Capacity::default(), Faults { one_in, seed: 1 })
    }

    #[test]
    fn refused_write_stops_the_plan_until_the_retry() {
        let (mut publisher, mut map_state, now) = (Publisher::default(), MapState::default(), Instant::now());
        let ops = [MapOp::PutServiceName(0, "/web".into()), MapOp::PutExcluded(5)];
        let mut plane = memory(1);
        assert!(!publisher.apply(&ops, &mut plane, &mut map_state, now));
        assert_eq!(plane.refused, TRIES as u64, "the first write is tried three times");
        assert_eq!((publisher.retry_at(), map_state.excluded().len()), (Some(now + RETRY), 0));
        publisher.plan(&Desired::default(), Vec::new(), &map_state);
        assert_eq!(publisher.refused(), None);
        assert!(publisher.apply(&ops, &mut memory(0), &mut map_state, now));
        assert_eq!(map_state.excluded().len(), 1);
    }

    #[test]
    fn refused_takeover_is_retried() {
        let (mut publisher, now) = (Publisher::default(), Instant::now());
        assert!(!publisher.take_over(&mut memory(1), now));
        assert_eq!(publisher.retry_at(), Some(now + RETRY));
    }

    #[test]
    fn desired_state_counts_as_applied_only_until_the_next_plan() {
        let (mut publisher, map_state) = (Publisher::default(), MapState::default());
        let desired = Desired { max_connections: 7, ..Desired::default() };
        publisher.set_applied(desired.clone(), &BTreeSet::new());
        assert_eq!(publisher.applied, desired);
        publisher.plan(&desired, Vec::new(), &map_state);
        assert_eq!(publisher.applied, Desired::default());
    }
}
