//! Who owns a service: any claims, any histories, any answers of Marathon.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::model::{Protocol, Service, Snapshot};

const KEY: ServiceKey = ServiceKey::host(10_005, Protocol::Tcp);
const APPS: [&str; 4] = ["/a/x", "/b/x", "/c/x", "/d/x"];

/// An agent's history of the service.
#[derive(Clone, Debug)]
enum History {
    /// The agent has never served it.
    New,
    /// Its state file is of a version that recorded no owner. That named the first app by id.
    Unrecorded,
    /// This app was the owner.
    Owner(&'static str),
}

fn lookups(history: &History, first_versions: &BTreeMap<String, Result<i64, String>>) -> Lookups {
    let owner =
        |owner: Option<&str>| Service { name: APPS[0].into(), owner: owner.map(str::to_owned), ..Service::default() };
    let served = match history {
        History::New => None,
        History::Unrecorded => Some(owner(None)),
        History::Owner(app) => Some(owner(Some(app))),
    };
    let services = served.map(|service| (KEY, Arc::new(service))).into_iter().collect();
    let served = Snapshot { services, warnings: Vec::new() };
    Lookups { served, first_versions: first_versions.clone(), ..Lookups::default() }
}

/// Returns the owner, whether it is certain, and the apps that are to be asked for.
fn choose(
    rules: &ClaimRules,
    lookups: &Lookups,
    claimants: &[Claimant<'static>],
) -> (Option<&'static str>, bool, Vec<String>) {
    let mut undecided = BTreeSet::new();
    let chosen = Ownership { rules, lookups }.choose(KEY, claimants, &mut undecided);
    let certain = chosen.is_some_and(|chosen| chosen.is_certain());
    (chosen.map(|chosen| chosen.owner.app), certain, undecided.into_iter().collect())
}

/// Claims in order of ids: a letter is an app, and an upper one has the port assigned.
fn claims(text: &str) -> Vec<Claimant<'static>> {
    let claimant = |letter: char| {
        let app = APPS.into_iter().find(|app| app[1..].starts_with(letter.to_ascii_lowercase())).unwrap();
        Claimant { app, is_assigned: letter.is_ascii_uppercase() }
    };
    text.chars().map(claimant).collect()
}

#[test]
fn owner_follows_assignment_then_history_then_age_then_id() {
    use History::{New, Owner, Unrecorded};
    // The apps from the oldest to the youngest; an app that is missing has no answer.
    for (text, history, ages, owner) in [
        ("aB", Owner("/a/x"), "ab", "/b/x"),
        ("aB", New, "", "/b/x"),
        ("AB", Owner("/b/x"), "ab", "/b/x"),
        ("AB", Owner("/c/x"), "ba", "/b/x"),
        ("AB", Unrecorded, "ba", "/b/x"),
        ("AB", New, "ba", "/b/x"),
        ("AB", New, "ab", "/a/x"),
        ("AB", New, "b", "/a/x"),
        ("ab", Owner("/b/x"), "ab", "/b/x"),
        ("ab", New, "ba", "/b/x"),
        ("abCD", Owner("/a/x"), "abdc", "/d/x"),
        ("c", Owner("/a/x"), "", "/c/x"),
    ] {
        let answer = |app: &str| match ages.find(&app[1..2]) {
            Some(age) => Ok(i64::try_from(age).unwrap()),
            None => Err("no answer".to_owned()),
        };
        let answers = APPS.map(|app| (app.to_owned(), answer(app))).into();
        let (chosen, certain, asked) = choose(&ClaimRules::default(), &lookups(&history, &answers), &claims(text));
        assert_eq!((chosen, asked.len()), (Some(owner), 0), "{text} {history:?} {ages}");
        assert_eq!(certain, (text, ages) != ("AB", "b"), "{text} {history:?} {ages}");
    }
}

#[test]
fn versions_are_asked_for_only_if_nothing_else_decides() {
    let ask = |text, history| choose(&ClaimRules::default(), &lookups(&history, &BTreeMap::new()), &claims(text));
    assert_eq!(ask("aBCd", History::New), (Some("/b/x"), false, vec!["/b/x".into(), "/c/x".into()]));
    for (text, history) in [("a", History::New), ("aBc", History::New), ("AB", History::Owner("/b/x"))] {
        assert_eq!(ask(text, history).2, [""; 0], "{text}");
    }
}

#[test]
fn owner_flag_decides_and_keeps_the_port_for_its_group() {
    let rules = |app: &str| ClaimRules { owners: [(KEY.port, app.to_owned())].into(), ..ClaimRules::default() };
    let history = lookups(&History::Owner("/a/x"), &BTreeMap::new());
    assert_eq!(choose(&rules("/b/x"), &history, &claims("Ab")), (Some("/b/x"), true, vec![]));
    assert_eq!(choose(&rules("/b/other"), &history, &claims("Ab")), (Some("/b/x"), true, vec![]));
    assert_eq!(choose(&rules("/z/x"), &history, &claims("Ab")), (None, false, vec![]));
    let anyone = ClaimRules { share_anyone: true, ..rules("/z/x") };
    assert_eq!(choose(&anyone, &history, &claims("Ab")), (Some("/a/x"), true, vec![]));
}

#[test]
fn group_is_the_parent_path_and_the_root_too() {
    let (rules, lookups) = (ClaimRules::default(), Lookups::default());
    let ownership = Ownership { rules: &rules, lookups: &lookups };
    for (owner, app, joins) in [
        ("/shop/web", "/shop/canary", true),
        ("/web", "/canary", true),
        ("/web", "/shop/canary", false),
        ("/shop/web", "/shop/deep/canary", false),
        ("/shop/web", "/shopping/web", false),
        ("/shop/web", "/shop", false),
    ] {
        assert_eq!(ownership.may_join(owner, &ShareList::default(), app), joins, "{owner} {app}");
        let anyone = ClaimRules { share_anyone: true, ..ClaimRules::default() };
        assert!(Ownership { rules: &anyone, lookups: &lookups }.may_join(owner, &ShareList::default(), app));
    }
}

fn any_claims() -> impl Strategy<Value = Vec<Claimant<'static>>> {
    prop::collection::btree_map(0..APPS.len(), any::<bool>(), 1..=APPS.len())
        .prop_map(|all| all.into_iter().map(|(nth, is_assigned)| Claimant { app: APPS[nth], is_assigned }).collect())
}

fn any_history() -> impl Strategy<Value = History> {
    prop_oneof![
        Just(History::New),
        Just(History::Unrecorded),
        prop::sample::select(APPS.to_vec()).prop_map(History::Owner)
    ]
}

proptest! {
    /// Agents of different versions and histories come to the same owner wherever Marathon's answers decide it.
    #[test]
    fn agents_agree_on_the_owner(
        claims in any_claims(),
        histories in prop::collection::vec(any_history(), 2..6),
        ages in prop::collection::vec(0_i64..3, APPS.len()),
    ) {
        let rules = ClaimRules::default();
        let answers = APPS.iter().zip(ages).map(|(app, age)| ((*app).to_owned(), Ok(age))).collect();
        let fresh = choose(&rules, &lookups(&History::New, &answers), &claims);
        prop_assert!(fresh.1 && fresh.2.is_empty());
        let assigned = claims.iter().filter(|it| it.is_assigned).count();
        let is_equal = |app: &str| claims.iter().any(|it| it.app == app && (it.is_assigned || assigned == 0));
        for history in histories {
            let (owner, certain, _) = choose(&rules, &lookups(&history, &answers), &claims);
            prop_assert!(certain);
            match history {
                // Marathon does not know which of two equal claims came first to this host.
                History::Owner(app) if assigned != 1 && is_equal(app) => prop_assert_eq!(owner, Some(app)),
                _ => prop_assert_eq!(owner, fresh.0, "{:?}", history),
            }
            // The choice stays, also without any answer of Marathon.
            let kept = lookups(&History::Owner(owner.unwrap()), &BTreeMap::new());
            prop_assert_eq!(choose(&rules, &kept, &claims), (owner, true, vec![]));
        }
    }

    /// No app takes a service from its owner by its claims, whatever its id, unless Marathon assigned the port only to it.
    #[test]
    fn later_claim_takes_a_service_from_no_owner(claims in any_claims(), answers in any::<[i64; 4]>()) {
        let rules = ClaimRules::default();
        let answers = APPS.iter().zip(answers).map(|(app, age)| ((*app).to_owned(), Ok(age))).collect();
        for owner in &claims {
            let (chosen, ..) = choose(&rules, &lookups(&History::Owner(owner.app), &answers), &claims);
            let chosen = claims.iter().find(|it| Some(it.app) == chosen).unwrap();
            prop_assert!(chosen.app == owner.app || chosen.is_assigned && !owner.is_assigned);
        }
    }
}
