//! When the agent looks for listeners, for which services it reports that there is none, and which listeners it
//! publishes for the hooks. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use proxymatic_common::{Class, Event, EventKind, Features, Frontend, ListenerEntry, ListenerFlags, ListenerKey};

use super::{bind_log, effect::Effect};
use crate::{
    dataplane::{Counters, ListenerScope, ListenerSeq},
    plan::{MapOp, MapState},
    sockets::{Listening, SweepReport},
};

/// The longest time between two checks: hooks report neither a close, nor binds outside of the served cgroup.
const EVERY: Duration = Duration::from_secs(10);
/// The shortest time between two checks.
const SOON: Duration = Duration::from_secs(1);
/// The longest time that the first publication waits for the first look.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// A service on the host's own addresses, as it was before a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ListenerCheck {
    frontend: Frontend,
    seq: ListenerSeq,
}

/// The look for listeners that are older than the agent, before it publishes the first service of this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum FirstLook {
    /// Nothing was to be published yet.
    #[default]
    Pending,
    /// The worker does another sweep. Publication waits until this time at the latest.
    Waiting(Instant),
    /// The look is under way. Publication waits until this time at the latest.
    UnderWay(Instant),
    /// The look has ended, or is not needed.
    Over,
}

/// The time of the next check, and what was known before the one under way.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    at: Option<Instant>,
    last: Option<Instant>,
    /// The services of the check under way, by id.
    checks: BTreeMap<u32, ListenerCheck>,
    /// The listeners that were published before the check under way.
    published: BTreeMap<ListenerKey, ListenerEntry>,
    /// The listeners of the host on all ports, as the last check found them.
    of_host: BTreeMap<ListenerKey, ListenerFlags>,
    first_look: FirstLook,
    /// The service ids, cgroups and kinds of the binds that were logged.
    binds: BTreeSet<(u32, u64, EventKind)>,
}

impl Listeners {
    /// Handles events of the hooks: a bind and a close move the next check forward, and the first bind by each cgroup is
    /// logged.
    pub(super) fn hook_events(
        &mut self,
        events: &[Event],
        map_state: &MapState,
        scope: Option<ListenerScope>,
        now: Instant,
    ) {
        for event in events {
            match event.kind {
                EventKind::BOUND | EventKind::UNBOUND => self.soon(now),
                EventKind::BIND_REFUSED => {}
                _ => continue,
            }
            if let Some(service) = map_state.services().get(&event.service)
                && event.kind != EventKind::UNBOUND
                && !service.settings.features.has(Features::OWN_LISTENER)
                && self.binds.insert((event.service, event.cgroup, event.kind))
            {
                tracing::warn!("{}", bind_log::describe(&service.name, event, scope.is_some()));
            }
        }
    }

    /// Forgets the binds on ports of services that are gone.
    pub(super) fn forget_gone(&mut self, map_state: &MapState) {
        self.binds.retain(|(service, ..)| map_state.services().contains_key(service));
    }

    /// Moves the next check forward.
    fn soon(&mut self, now: Instant) {
        let soon = self.last.map_or(now, |last| now.max(last + SOON));
        self.at = Some(self.at.map_or(soon, |at| at.min(soon)));
    }

    /// Notes the services that these writes add. A check under way is about the earlier owners of their ids. Returns the
    /// listeners to publish before the writes, so that no new service takes the port of a known listener.
    pub(super) fn planned(&mut self, ops: &[MapOp], now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        for op in ops {
            match op {
                MapOp::ResetServiceLoad(id) => {
                    self.checks.remove(id);
                    self.soon(now);
                }
                MapOp::PutFrontend(frontend, _) if frontend.class == Class::HOST => {
                    let known = self.of_host.iter().filter(|(key, _)| is_on(key, frontend));
                    effects.extend(known.map(|(key, flags)| publish(*key, *flags)));
                }
                _ => {}
            }
        }
        effects
    }

    /// Returns whether publication must wait for the first look, and where to look if it begins now. `scope` is `None` if
    /// there is no worker, `is_idle` is whether it does nothing else. A host whose services are published does not wait.
    pub(super) fn first_look(
        &mut self,
        map_state: &MapState,
        scope: Option<ListenerScope>,
        is_idle: bool,
        now: Instant,
    ) -> (bool, Option<ListenerScope>) {
        let until = match self.first_look {
            FirstLook::Pending => now + FIRST_LOOK,
            FirstLook::Waiting(until) | FirstLook::UnderWay(until) => until,
            FirstLook::Over => return (false, None),
        };
        if scope.is_none() || !map_state.services().is_empty() || now >= until {
            self.first_look = FirstLook::Over;
            return (false, None);
        }
        if matches!(self.first_look, FirstLook::UnderWay(_)) {
            return (true, None);
        }
        self.first_look = if is_idle { FirstLook::UnderWay(until) } else { FirstLook::Waiting(until) };
        (true, scope.filter(|_| is_idle))
    }

    /// Returns whether the end of a sweep lets publication go on: the first look has ended, or can begin.
    pub(super) fn end_first_look(&mut self) -> bool {
        if matches!(self.first_look, FirstLook::UnderWay(_)) {
            self.first_look = FirstLook::Over;
            return true;
        }
        matches!(self.first_look, FirstLook::Waiting(_))
    }

    /// Begins a check if one is due. Returns where to look for listeners.
    pub(super) fn begin_if_due(
        &mut self,
        map_state: &MapState,
        counters: &impl Counters,
        now: Instant,
    ) -> Option<ListenerScope> {
        // Read before the sweep: each bind from now on increases the sequence number.
        let scope = counters.listener_scope().filter(|_| self.is_due(now))?;
        let services = map_state.services().keys();
        let checks = services.filter_map(|id| Some((*id, current(map_state, counters, *id)?))).collect();
        let begun = self.begin(checks, now);
        if begun {
            self.published = counters.published_listeners();
        }
        begun.then_some(scope)
    }

    fn is_due(&self, now: Instant) -> bool {
        self.at.is_none_or(|at| at <= now)
    }

    /// Begins a check. Returns false if there is no service to check.
    fn begin(&mut self, checks: BTreeMap<u32, ListenerCheck>, now: Instant) -> bool {
        self.checks = checks;
        self.at = Some(now + EVERY);
        self.last = Some(now);
        !self.checks.is_empty()
    }

    /// Ends the check under way with the report of its sweep.
    pub(super) fn swept(
        &mut self,
        report: &SweepReport,
        map_state: &MapState,
        counters: &impl Counters,
        now: Instant,
    ) -> Vec<Effect> {
        if report.listening.is_none() && report.limitation.is_none() && !self.checks.is_empty() {
            // A process ended during the sweep, so a network namespace is missing.
            self.soon(now);
        }
        let mut effects = Vec::new();
        if let Some(listening) = &report.listening {
            self.of_host.clone_from(&listening.of_host);
            let ports = map_state.frontends().keys().filter(|frontend| frontend.class == Class::HOST);
            let ports: BTreeSet<_> = ports.map(|frontend| (frontend.protocol, frontend.port)).collect();
            let on_services = self.of_host.iter().filter(|(key, _)| ports.contains(&(key.protocol, key.port)));
            let wanted = on_services.map(|(key, flags)| (*key, *flags)).collect();
            effects = changes(&wanted, &self.published, &counters.published_listeners());
        }
        // The listeners are published before the hooks may skip the lookup of a service.
        let changes = self.end(report.listening.as_ref(), |id| current(map_state, counters, id));
        effects.extend(changes.into_iter().map(|(service, bound)| Effect::SetNoListener(service, bound)));
        effects
    }

    /// Takes the ports with a listener, if all were seen. Returns the new [`ListenerSeq::no_listener_seq`] by service.
    ///
    /// A bind during the sweep has increased [`ListenerSeq::bind_seq`] since the check began, so the result does not hide
    /// its listener.
    fn end(
        &mut self,
        listening: Option<&Listening>,
        current: impl Fn(u32) -> Option<ListenerCheck>,
    ) -> Vec<(u32, u64)> {
        let checks = std::mem::take(&mut self.checks);
        let Some(listening) = listening else { return Vec::new() };
        let change = |(id, before): (u32, ListenerCheck)| {
            let ListenerCheck { frontend, seq } = current(id).filter(|now| now.frontend == before.frontend)?;
            if listening.may_receive(frontend.protocol, frontend.port) {
                // A listener whose bind was not counted.
                (seq.no_listener_seq == seq.bind_seq).then(|| (id, seq.bind_seq.wrapping_sub(1)))
            } else {
                (seq.no_listener_seq != before.seq.bind_seq).then_some((id, before.seq.bind_seq))
            }
        };
        checks.into_iter().filter_map(change).collect()
    }
}

/// Returns whether a listener is on the port of a service.
fn is_on(key: &ListenerKey, frontend: &Frontend) -> bool {
    (key.protocol, key.port) == (frontend.protocol, frontend.port)
}

fn publish(key: ListenerKey, flags: ListenerFlags) -> Effect {
    Effect::PublishListener(key, Some(ListenerEntry { flags, bind_seq: 0 }))
}

/// Returns the writes that make the published listeners those that a sweep found. An entry that a hook has written since
/// `before`, which was read before the sweep, stays.
fn changes(
    wanted: &BTreeMap<ListenerKey, ListenerFlags>,
    before: &BTreeMap<ListenerKey, ListenerEntry>,
    now: &BTreeMap<ListenerKey, ListenerEntry>,
) -> Vec<Effect> {
    let by_hook = |key: &ListenerKey| now.get(key).is_some_and(|entry| before.get(key) != Some(entry));
    let wrong = wanted.iter().filter(|(key, flags)| now.get(*key).is_none_or(|entry| entry.flags != **flags));
    let puts = wrong.filter(|(key, _)| !by_hook(key)).map(|(key, flags)| publish(*key, *flags));
    let gone = now.keys().filter(|key| !wanted.contains_key(*key) && !by_hook(key));
    puts.chain(gone.map(|key| Effect::PublishListener(*key, None))).collect()
}

/// Returns a service as it is now; `None` if it is not on the host's own addresses, or one of its own replicas may listen
/// on its port.
fn current(map_state: &MapState, counters: &impl Counters, id: u32) -> Option<ListenerCheck> {
    let service = map_state.services().get(&id)?;
    let frontend = service.frontend.filter(|frontend| frontend.class == Class::HOST)?;
    let own = service.settings.features.has(Features::OWN_LISTENER);
    let seq = counters.listener_seq(id).filter(|_| !own)?;
    Some(ListenerCheck { frontend, seq })
}

#[cfg(test)]
mod tests;
