//! Which new backends stay warming until they answer a first probe, and when each is probed. Pure: the clock and the seed
//! are arguments.
//!
//! A task without a check is RUNNING before it listens, and a connect to it would be refused meanwhile. So the agent probes
//! each new backend that no check of its source covers. The backend is used from its first answer on, or when it is no
//! longer new.

mod identity;
mod newness;
mod rate;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use proxymatic_common::{Address, BackendState, Class, Frontend, PROTOCOL_TCP, Port};

use self::{identity::Identity, newness::new_backends, rate::Rate};
use super::{
    effect::{Effect, Trigger},
    status::{AwaitedBackend, ProbeCounts},
};
use crate::{
    backend_probe::{Order, Outcome, Probed},
    model::{Backend, ServiceKey, Snapshot, State},
    plan::{MapState, ServiceEntry, Services},
    source::SourceId,
};

pub(crate) use newness::Before;

/// The pause after the first probe without an answer. The pause doubles with each further probe.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause between two probes of one backend.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The shortest time between two writes of answers: in a large cluster a plan takes milliseconds, and answers may come by
/// the hundred.
const BETWEEN_PLANS: Duration = Duration::from_millis(20);
/// How many backends `status` shows.
const MOST_SHOWN: usize = 100;

/// A new backend that has not answered yet.
#[derive(Debug)]
struct Awaited {
    source: SourceId,
    /// The services that have the backend.
    keys: BTreeSet<ServiceKey>,
    /// The name of one of these services.
    service: String,
    /// When the backend is no longer new.
    deadline: Instant,
    /// When the backend is probed next.
    due: Instant,
    /// The pause after the next probe without an answer.
    pause: Duration,
    /// The result of the last probe, and how many there were.
    last: Option<Outcome>,
    probes: u32,
}

/// The new backends that have not answered yet.
#[derive(Debug)]
pub(crate) struct FirstAnswers {
    /// How long after its start a task is new; zero if no backend is probed before its first use.
    new_for: Duration,
    rate: Rate,
    awaited: BTreeMap<Arc<Identity>, Awaited>,
    /// The awaited backends that are not being probed, by the time of their next probe.
    due: BTreeSet<(Instant, Arc<Identity>)>,
    deadlines: BTreeSet<(Instant, Arc<Identity>)>,
    /// The probes without a result yet, by number.
    under_way: BTreeMap<u64, Arc<Identity>>,
    last_probe: u64,
    /// Whether a backend came into use since the last plan, and the time of that plan.
    changed: bool,
    planned: Option<Instant>,
    counts: ProbeCounts,
}

impl FirstAnswers {
    /// Starts without any backend. The seed differs from host to host.
    pub(crate) fn new(new_for: Duration, seed: u64) -> Self {
        Self {
            new_for,
            rate: Rate::new(seed),
            awaited: BTreeMap::new(),
            due: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            under_way: BTreeMap::new(),
            last_probe: 0,
            changed: false,
            planned: None,
            counts: ProbeCounts::default(),
        }
    }

    /// Takes an answer of a source: its new backends are awaited, and those that are gone are not any more. A plan must
    /// follow.
    pub(crate) fn listed(&mut self, source: SourceId, snapshot: &Snapshot, before: Before<'_>, now: Instant) {
        if self.new_for.is_zero() {
            return;
        }
        let is_listed = |identity: &Identity, awaited: &Awaited| {
            let mut services = awaited.keys.iter().filter_map(|key| snapshot.services.get(key));
            services.any(|service| identity.position(&service.backends).is_some())
        };
        let gone = self.awaited.iter().filter(|(id, awaited)| awaited.source == source && !is_listed(id, awaited));
        let gone: Vec<_> = gone.map(|(identity, _)| Arc::clone(identity)).collect();
        for identity in gone {
            self.forget(&identity);
        }
        let is_awaited = |task: &str, at| self.awaited.contains_key(&Identity { task: task.to_owned(), at });
        for new in new_backends(source, snapshot, before, is_awaited, self.new_for, now) {
            let identity = Arc::new(new.identity);
            if let Some(awaited) = self.awaited.get_mut(&identity) {
                awaited.keys.insert(new.key);
                continue;
            }
            let due = now + self.rate.first();
            self.due.insert((due, Arc::clone(&identity)));
            self.deadlines.insert((new.deadline, Arc::clone(&identity)));
            let awaited = Awaited {
                source,
                keys: BTreeSet::from([new.key]),
                service: new.service,
                deadline: new.deadline,
                due,
                pause: FIRST_PAUSE,
                last: None,
                probes: 0,
            };
            self.awaited.insert(identity, awaited);
        }
    }

    /// Takes the result of a probe.
    pub(super) fn probed(&mut self, Probed { probe, outcome }: Probed, now: Instant) -> Vec<Effect> {
        let Some(identity) = self.under_way.remove(&probe) else { return Vec::new() };
        self.counts.add(outcome);
        let Some(awaited) = self.awaited.get_mut(&identity) else { return Vec::new() };
        awaited.probes += 1;
        awaited.last = Some(outcome);
        if outcome == Outcome::Answered {
            tracing::debug!("{} {} answers probe {}: used", awaited.service, identity.at, awaited.probes);
            self.forget(&identity);
            self.changed = true;
        } else {
            self.due.remove(&(awaited.due, Arc::clone(&identity)));
            awaited.due = now + self.rate.jitter(awaited.pause);
            awaited.pause = (awaited.pause * 2).min(LONGEST_PAUSE);
            self.due.insert((awaited.due, identity));
        }
        self.plan_if_due(now)
    }

    /// Does what is due: ends the wait for backends that are no longer new, starts at most one probe, and plans.
    pub(super) fn wake(&mut self, now: Instant) -> Vec<Effect> {
        while let Some((deadline, identity)) = self.deadlines.first()
            && *deadline <= now
        {
            let identity = Arc::clone(identity);
            if let Some(awaited) = self.awaited.get(&identity) {
                tracing::info!("{} {}: {}, and is used now", awaited.service, identity.at, awaited.result());
            }
            self.forget(&identity);
            self.changed = true;
        }
        let mut effects = self.plan_if_due(now);
        effects.extend(self.probe_if_due(now));
        effects
    }

    /// Returns when [`Self::wake`] has something to do; `None` for never.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let probe = self.due.first().map(|(due, _)| self.rate.next_after(*due));
        let plan = self.changed.then(|| self.plan_at()).flatten();
        probe.into_iter().chain(self.deadlines.first().map(|(deadline, _)| *deadline)).chain(plan).min()
    }

    /// Makes the awaited backends of the desired state warming.
    ///
    /// A service that takes connections by the maps, and would have no other backend, keeps the awaited ones: refusing would
    /// be no better.
    pub(super) fn hold_back(&self, services: &mut Services, map_state: &MapState) {
        let mut by_service: BTreeMap<ServiceKey, Vec<&Identity>> = BTreeMap::new();
        for (identity, awaited) in &self.awaited {
            for key in &awaited.keys {
                if services.get(key).is_some_and(|(code, _)| *code == awaited.source.code()) {
                    by_service.entry(*key).or_default().push(identity);
                }
            }
        }
        for (key, identities) in by_service {
            let Some((_, service)) = services.get_mut(&key) else { continue };
            let awaited: BTreeSet<_> = identities.iter().filter_map(|it| it.position(&service.backends)).collect();
            let is_other = |(at, it): (usize, &Backend)| it.state != State::Warming && !awaited.contains(&at);
            if !service.backends.iter().enumerate().any(is_other) && has_slots(map_state, key) {
                continue;
            }
            for at in awaited {
                let backend = &mut Arc::make_mut(service).backends[at];
                if backend.state == State::Active {
                    backend.state = State::Warming;
                }
            }
        }
    }

    /// Returns how many backends are awaited.
    pub(super) fn count(&self) -> u64 {
        self.awaited.len() as u64
    }

    /// Returns how many probes had which result.
    pub(super) const fn counts(&self) -> ProbeCounts {
        self.counts
    }

    /// Returns the first hundred awaited backends that are warming in the maps, each with the reason.
    pub(crate) fn status(&self, map_state: &MapState, now: Instant) -> Vec<AwaitedBackend> {
        let is_warming = |(identity, awaited): &(&Arc<Identity>, &Awaited)| {
            let entries = awaited.keys.iter().filter_map(|key| service_entry(map_state, *key));
            let mut backends = entries.flat_map(|it| &it.backends).filter_map(|id| map_state.backends().get(id));
            backends.any(|it| identity.is(it) && it.backend.state == BackendState::WARMING)
        };
        let row = |(identity, awaited): (&Arc<Identity>, &Awaited)| AwaitedBackend {
            service: awaited.service.clone(),
            backend: identity.at,
            task: identity.task.clone(),
            reason: awaited.reason(now),
        };
        self.awaited.iter().filter(is_warming).take(MOST_SHOWN).map(row).collect()
    }

    fn forget(&mut self, identity: &Arc<Identity>) {
        if let Some(awaited) = self.awaited.remove(identity) {
            self.due.remove(&(awaited.due, Arc::clone(identity)));
            self.deadlines.remove(&(awaited.deadline, Arc::clone(identity)));
        }
    }

    fn probe_if_due(&mut self, now: Instant) -> Option<Effect> {
        let (due, identity) = self.due.first().filter(|(due, _)| self.rate.next_after(*due) <= now)?.clone();
        self.due.remove(&(due, Arc::clone(&identity)));
        // A probe from before the backend left and came back.
        if self.under_way.values().any(|other| *other == identity) {
            let awaited = self.awaited.get_mut(&identity)?;
            awaited.due = now + self.rate.jitter(FIRST_PAUSE);
            self.due.insert((awaited.due, identity));
            return None;
        }
        self.rate.probed(now);
        self.last_probe += 1;
        let (probe, to) = (self.last_probe, identity.at);
        self.under_way.insert(probe, identity);
        Some(Effect::Probe(Order::Once { probe, to }))
    }

    fn plan_at(&self) -> Option<Instant> {
        self.planned.map(|planned| planned + BETWEEN_PLANS)
    }

    fn plan_if_due(&mut self, now: Instant) -> Vec<Effect> {
        if !self.changed || self.plan_at().is_some_and(|at| now < at) {
            return Vec::new();
        }
        self.changed = false;
        self.planned = Some(now);
        vec![Effect::Publish(Trigger::Other)]
    }
}

/// Returns what the maps hold of a TCP service.
fn service_entry(map_state: &MapState, key: ServiceKey) -> Option<&ServiceEntry> {
    let class = match key.address {
        None => Class::HOST,
        Some(address) => *map_state.addresses().get(&Address::from(address))?,
    };
    let id = map_state.frontends().get(&Frontend::new(class, Port::new(key.port), PROTOCOL_TCP))?;
    map_state.services().get(id)
}

/// Returns whether a service takes connections by the maps.
fn has_slots(map_state: &MapState, key: ServiceKey) -> bool {
    service_entry(map_state, key).is_some_and(|it| !map_state.slots_of(it.slot_range).is_empty())
}

impl Awaited {
    /// Returns the result of the probes, as the start of a sentence.
    fn result(&self) -> String {
        let result = match self.last {
            None => return "has not been probed yet".into(),
            Some(Outcome::Refused) => "refused",
            Some(Outcome::Unanswered | Outcome::Answered) => "did not answer",
            Some(Outcome::Failed) => "could not be reached by",
        };
        let probes = if self.probes == 1 { "the first probe".into() } else { format!("probe {}", self.probes) };
        format!("{result} {probes}")
    }

    fn reason(&self, now: Instant) -> String {
        let left = self.deadline.saturating_duration_since(now).as_secs_f64();
        format!(
            "new, without a check, and {}; used at its first answer, in {left:.1} s at the latest (--first-answer)",
            self.result()
        )
    }
}

#[cfg(test)]
mod tests;
