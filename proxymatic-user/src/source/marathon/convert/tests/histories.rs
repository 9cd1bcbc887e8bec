//! Histories of versions, tasks and rollbacks. Each port of each task leads to the service that the task's own definition
//! gives it, or to none, with a warning.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc};

use proptest::{prelude::*, sample::Index};
use serde_json::{Value, json};

use super::*;

/// What an operator does, or what happens.
#[derive(Clone, Debug)]
enum Step {
    /// A version with these service ports is deployed.
    Deploy(Vec<u16>),
    /// The number of tasks changes, which makes a version too.
    Scale,
    /// A deployment is withdrawn: an earlier version is restored, and none is made.
    Withdraw(Index),
    /// A task of the present version starts.
    Start,
    /// Marathon forgets a version.
    Forget(Index),
}

fn step() -> impl Strategy<Value = Step> {
    let ports = prop::sample::subsequence(vec![1000, 1001, 1002], 1..=3).prop_shuffle();
    prop_oneof![
        2 => ports.prop_map(Step::Deploy),
        1 => Just(Step::Scale),
        2 => any::<Index>().prop_map(Step::Withdraw),
        4 => Just(Step::Start),
        1 => any::<Index>().prop_map(Step::Forget),
    ]
}

/// One version: its service ports, and the version that last changed them.
struct Version {
    ports: Vec<u16>,
    changed: usize,
    is_forgotten: bool,
}

fn stamp(version: usize) -> String {
    format!("2026-01-01T00:{:02}:{:02}.000Z", version / 60, version % 60)
}

fn definition(versions: &[Version], version: usize) -> Value {
    let ports: Vec<_> = versions[version].ports.iter().map(|port| json!({"port": port, "protocol": "tcp"})).collect();
    // Marathon has replaced no task yet.
    json!({"id": "/a", "version": stamp(version), "deployments": [{"id": "d"}], "networks": [{"mode": "host"}], "portDefinitions": ports,
        "versionInfo": {"lastScalingAt": stamp(version), "lastConfigChangeAt": stamp(versions[version].changed)}})
}

fn task(number: usize, version: usize, ports: usize) -> Value {
    let ports: Vec<_> = (0..ports).map(|index| host_port(number, index)).collect();
    json!({"id": format!("t{number}"), "host": "10.0.0.1", "ports": ports, "state": "TASK_RUNNING", "version": stamp(version)})
}

fn host_port(task: usize, index: usize) -> usize {
    20_000 + task * 10 + index
}

proptest! {
    #[test]
    fn port_leads_where_the_definition_of_its_task_says(steps in prop::collection::vec(step(), 1..20)) {
        let mut versions = vec![Version { ports: vec![1000], changed: 0, is_forgotten: false }];
        let (mut present, mut tasks) = (0, Vec::new());
        for step in steps {
            match step {
                Step::Deploy(ports) => {
                    versions.push(Version { ports, changed: versions.len(), is_forgotten: false });
                    present = versions.len() - 1;
                }
                Step::Scale => {
                    let Version { ports, changed, .. } = &versions[present];
                    versions.push(Version { ports: ports.clone(), changed: *changed, is_forgotten: false });
                    present = versions.len() - 1;
                }
                Step::Withdraw(to) => present = to.index(versions.len()),
                Step::Start => tasks.push(present),
                Step::Forget(which) => {
                    let which = which.index(versions.len());
                    versions[which].is_forgotten = which != present;
                }
            }
        }
        let mut app = definition(&versions, present);
        let listed = tasks.iter().enumerate().map(|(number, it)| task(number, *it, versions[*it].ports.len()));
        app["tasks"] = listed.collect();
        let listing = listing(json!([app]));
        let read = |id: String, text: String| {
            let which = (0..versions.len()).find(|it| stamp(*it) == text).filter(|it| !versions[*it].is_forgotten);
            let read = which.map(|it| Arc::new(serde_json::from_value(definition(&versions, it)).unwrap()));
            ((id, text), read.ok_or_else(|| "gone".to_owned()))
        };
        let definitions = required_lookups(&listing).definitions.into_iter().map(|(id, text)| read(id, text)).collect();
        let lookups = Lookups { definitions, ..Lookups::default() };
        let (snapshot, notes) = convert_with_notes(&listing, &lookups, &NonZeroU32::MIN.into());
        let mut served: BTreeMap<usize, u16> = BTreeMap::new();
        for (key, service) in &snapshot.services {
            served.extend(service.backends.iter().map(|it| (it.port.into(), key.port)));
        }
        for (number, version) in tasks.iter().enumerate() {
            for (index, port) in versions[*version].ports.iter().enumerate() {
                match served.get(&host_port(number, index)) {
                    Some(service) => prop_assert_eq!(service, port, "port {} of task {}", index, number),
                    None => {
                        prop_assert!(!snapshot.warnings.is_empty());
                        prop_assert!(notes.unplaced.contains_key(&format!("t{number}")), "it is let go without draining");
                    }
                }
            }
        }
    }
}
