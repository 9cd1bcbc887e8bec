//! The desired state of the maps, made from all inputs in one place. The agent and `plan show` both use it. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use proxymatic_common::{Backend, BackendState, SourceCode};

use super::{first_answers::FirstAnswers, global_settings::GlobalSettings, merge::merge};
use crate::{
    model::{Snapshot, Warning},
    plan::{Desired, MapState},
    self_test,
    source::SourceId,
};

/// All that the desired state depends on.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    /// Every configured source, with what is known of it.
    pub(crate) sources: BTreeMap<SourceId, SourceInput<'a>>,
    /// The addresses of this host.
    pub(crate) addresses: &'a BTreeSet<IpAddr>,
    /// What the maps hold.
    pub(crate) map_state: &'a MapState,
    /// The settings for all services.
    pub(crate) settings: &'a GlobalSettings,
    /// The ids of the cgroups that allow lists and `settings` name, by path. A path that is missing here does not exist.
    pub(crate) cgroups: BTreeMap<String, u64>,
    /// The service of the self-test.
    pub(crate) self_test: SelfTestService,
    /// The backends that the operator drains, see [`drained_in`].
    pub(crate) drained: BTreeSet<u32>,
    /// The backends that are parked.
    pub(crate) parked: BTreeSet<u32>,
    /// The new backends that have not answered yet; `None` if there are none.
    pub(crate) first_answers: Option<&'a FirstAnswers>,
}

/// What is known of a source.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SourceInput<'a> {
    /// Nothing: the source has not answered, and its services in the maps stay.
    Unanswered,
    /// A snapshot from before a reboot: its services are added, and those in the maps stay too.
    Restored(&'a Snapshot),
    /// The latest answer.
    Answered(&'a Snapshot),
}

impl<'a> SourceInput<'a> {
    /// The snapshot in use.
    pub(crate) const fn snapshot(self) -> Option<&'a Snapshot> {
        match self {
            Self::Unanswered => None,
            Self::Restored(snapshot) | Self::Answered(snapshot) => Some(snapshot),
        }
    }
}

/// The service of the self-test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SelfTestService {
    /// There is none.
    Off,
    /// Its backend is this port on the loopback address.
    Port(u16),
    /// The one in the maps stays.
    FromMaps,
}

/// Returns the desired state, and warnings about what it leaves out.
pub(crate) fn desired_state(inputs: Inputs<'_>) -> (Desired, Vec<Warning>) {
    let Inputs { sources, addresses, map_state, settings, cgroups, self_test, drained, parked, first_answers } = inputs;
    let snapshots = sources.iter().map(|(source, input)| (*source, input.snapshot())).collect();
    let (mut desired, mut warnings) = merge(&snapshots, addresses, map_state);
    // A snapshot from before a reboot removes nothing that a source has added since.
    let restored = sources.iter().filter(|(_, input)| matches!(input, SourceInput::Restored(_)));
    desired.unanswered.extend(restored.map(|(source, _)| source.code()));
    desired.drained = drained;
    desired.parked = parked;
    if let Some(first_answers) = first_answers {
        first_answers.hold_back(&mut desired.services, map_state);
    }
    match self_test {
        SelfTestService::Off => {}
        SelfTestService::FromMaps => drop(desired.unanswered.insert(SourceCode::SELF)),
        SelfTestService::Port(port) => {
            // A source's service with this key has precedence.
            let service = || (SourceCode::SELF, self_test::service(port));
            desired.services.entry(self_test::KEY).or_insert_with(service);
        }
    }
    warnings.extend(settings.apply(&mut desired, cgroups));
    (desired, warnings)
}

/// Returns the backends that the operator drains. `drains` are ids and generations as map `DRAINED` holds them; a drain of
/// a backend that is gone does not count.
pub(crate) fn drained_in(map_state: &MapState, drains: &BTreeMap<u32, u32>) -> BTreeSet<u32> {
    drains.iter().filter(|(id, generation)| is_current(map_state, **id, **generation)).map(|(id, _)| *id).collect()
}

/// Returns whether an id still belongs to the backend with this generation.
pub(super) fn is_current(map_state: &MapState, id: u32, generation: u32) -> bool {
    let backend = map_state.backends().get(&id).map(|entry| &entry.backend);
    backend.is_some_and(|backend| backend.generation == generation && backend.state != BackendState::GONE)
}

/// Returns the backends that a running agent has parked, as far as the maps show it: active, but without a slot.
///
/// The agent parks only backends that are ejected or full; `is_unavailable` returns whether a backend is. Any other active
/// backend without a slot is one whose slots are yet to be written.
pub(crate) fn parked_in(map_state: &MapState, is_unavailable: impl Fn(u32, &Backend) -> bool) -> BTreeSet<u32> {
    let services = map_state.services().values();
    let without_slot = services.flat_map(|service| {
        let drawn: BTreeSet<u32> = map_state.slots_of(service.slot_range).iter().map(|slot| slot.backend()).collect();
        service.backends.iter().copied().filter(move |id| !drawn.contains(id))
    });
    let parked = without_slot.filter(|id| {
        map_state.backends().get(id).map(|entry| &entry.backend).is_some_and(|backend| {
            backend.state == BackendState::ACTIVE && backend.weight > 0 && is_unavailable(*id, backend)
        })
    });
    parked.collect()
}

/// Returns whether a backend is at its maxconn.
pub(crate) const fn is_full(backend: &Backend, active: u64) -> bool {
    backend.maxconn != 0 && active >= backend.maxconn as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{self, Protocol, Service, ServiceKey, State, Weight},
        plan::{Capacity, plan},
    };

    fn snapshot(tasks: u8) -> Snapshot {
        let backend = |task: u8| model::Backend {
            task: format!("web.{task}"),
            address: IpAddr::from([10, 0, 0, task]),
            port: 31_000,
            weight: Weight::default(),
            maxconn: 0,
            state: State::Active,
        };
        let service =
            Service { name: "/web".into(), backends: (1..=tasks).map(backend).collect(), ..Service::default() };
        let services = [(ServiceKey::host(1234, Protocol::Tcp), service.into())].into();
        Snapshot { services, warnings: Vec::new() }
    }

    fn inputs<'a>(
        source: SourceInput<'a>,
        map_state: &'a MapState,
        addresses: &'a BTreeSet<IpAddr>,
        settings: &'a GlobalSettings,
    ) -> Inputs<'a> {
        Inputs {
            sources: [(SourceId::Marathon, source)].into(),
            addresses,
            map_state,
            settings,
            cgroups: BTreeMap::new(),
            self_test: SelfTestService::Off,
            drained: BTreeSet::new(),
            parked: BTreeSet::new(),
            first_answers: None,
        }
    }

    /// Maps to which an agent has published three tasks, with these backends drained and parked.
    fn published(drained: &[u32], parked: &[u32]) -> MapState {
        let (addresses, settings, snapshot) = (BTreeSet::new(), GlobalSettings::default(), snapshot(3));
        let mut map_state = MapState::new(Capacity::default());
        let sets =
            [(BTreeSet::new(), BTreeSet::new()), (drained.iter().copied().collect(), parked.iter().copied().collect())];
        for (drained, parked) in sets {
            let inputs = inputs(SourceInput::Answered(&snapshot), &map_state, &addresses, &settings);
            let (desired, _) = desired_state(Inputs { drained, parked, ..inputs });
            plan(&desired, &map_state).ops.iter().for_each(|op| map_state.apply(op));
        }
        map_state
    }

    /// How many writes `plan show` prints for these maps.
    fn planned(map_state: &MapState, drains: &BTreeMap<u32, u32>, unavailable: &[u32]) -> usize {
        let (addresses, settings, snapshot) = (BTreeSet::new(), GlobalSettings::default(), snapshot(3));
        let inputs = Inputs {
            drained: drained_in(map_state, drains),
            parked: parked_in(map_state, |id, _| unavailable.contains(&id)),
            ..inputs(SourceInput::Answered(&snapshot), map_state, &addresses, &settings)
        };
        plan(&desired_state(inputs).0, map_state).ops.len()
    }

    #[test]
    fn plan_for_a_published_drain_is_empty() {
        let map_state = published(&[1], &[]);
        let generation = map_state.backends()[&1].backend.generation;
        assert_eq!(planned(&map_state, &[(1, generation)].into(), &[]), 0);
        assert_ne!(planned(&map_state, &[(1, generation + 1)].into(), &[]), 0, "the drain is of an earlier owner");
        assert_ne!(planned(&map_state, &BTreeMap::new(), &[]), 0, "the drain has ended");
    }

    #[test]
    fn plan_for_parked_backends_is_empty_while_they_are_unavailable() {
        for parked in [&[1][..], &[0, 2], &[0, 1, 2]] {
            let map_state = published(&[], parked);
            assert_eq!(planned(&map_state, &BTreeMap::new(), parked), 0, "{parked:?}");
        }
        assert_ne!(planned(&published(&[], &[1]), &BTreeMap::new(), &[0]), 0, "backend 1 is available again");
    }

    #[test]
    fn restored_snapshot_removes_no_service_of_its_source() {
        let (map_state, addresses, settings) = (published(&[], &[]), BTreeSet::new(), GlobalSettings::default());
        let nothing = Snapshot::default();
        for (source, writes) in [
            (SourceInput::Unanswered, false),
            (SourceInput::Restored(&nothing), false),
            (SourceInput::Answered(&nothing), true),
        ] {
            let (desired, _) = desired_state(inputs(source, &map_state, &addresses, &settings));
            assert_eq!(!plan(&desired, &map_state).ops.is_empty(), writes, "{source:?}");
        }
    }

    #[test]
    fn self_test_service_yields_to_a_source_with_the_same_key() {
        let (map_state, addresses, settings) = (MapState::default(), BTreeSet::new(), GlobalSettings::default());
        let source_of = |snapshot: &Snapshot, self_test| {
            let inputs = inputs(SourceInput::Answered(snapshot), &map_state, &addresses, &settings);
            let (desired, _) = desired_state(Inputs { self_test, ..inputs });
            desired.services.get(&self_test::KEY).map(|(source, _)| *source)
        };
        let theirs = Snapshot { services: [(self_test::KEY, self_test::service(1))].into(), warnings: Vec::new() };
        assert_eq!(source_of(&Snapshot::default(), SelfTestService::Port(4711)), Some(SourceCode::SELF));
        assert_eq!(source_of(&theirs, SelfTestService::Port(4711)), Some(SourceCode::MARATHON));
        assert_eq!(source_of(&Snapshot::default(), SelfTestService::Off), None);
        assert_eq!(source_of(&Snapshot::default(), SelfTestService::FromMaps), None);
    }
}
