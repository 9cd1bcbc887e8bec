//! Shares of connections follow the weights, and leastconn considers open connections before weights.

use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::Lab;
use serde_json::json;

use crate::fixtures::cluster::{APP, Cluster, PORT, SERVICE, place, replica_address};

/// At 12,000 connections, three percentage points are more than 6.7 times the standard deviation of any share.
const CONNECTIONS: u32 = 12_000;

#[test]
fn shares_follow_the_weights_of_three_apps_on_one_port() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::labelled(&lab, 1, &[("servicePort", "1234"), ("weight", "100")])?;
    for (nth, weight) in [(1, "300"), (2, "600")] {
        let name = ["a", "b", "c"][usize::from(nth)];
        let more = lab.replica(2, replica_address(nth).port(), name)?;
        let labels = json!({
            "com.meltwater.proxymatic.port.0.servicePort": PORT.to_string(),
            "com.meltwater.proxymatic.port.0.weight": weight,
        });
        let app = json!({ "id": format!("{APP}-{weight}"), "servicePort": 0, "labels": labels,
            "tasks": [place(more.address)] });
        web.sim.control("apps", &app)?;
        web.replicas.push(more);
    }
    web.when_active(&[0, 1, 2])?;
    let seen = web.ask(CONNECTIONS)?;
    assert_eq!((seen.failed, seen.ok), (0, CONNECTIONS.into()), "{seen:?}");
    for (name, expected) in [("a", 10.0), ("b", 30.0), ("c", 60.0)] {
        let share = 100.0 * seen.by_replica[name] as f64 / f64::from(CONNECTIONS);
        assert!((share - expected).abs() < 3.0, "{name} got {share:.1} %, its weight is worth {expected}: {seen:?}");
    }
    Ok(())
}

#[test]
fn busy_replica_gets_no_new_connections_while_others_are_idle() -> TestResult {
    let lab = Lab::start(2)?;
    let web = Cluster::start(&lab, 3)?;
    let mut client = lab.host(1).tcp_client()?;
    assert_eq!(client.tell(&format!("connect c {SERVICE}"))?, "ok");
    let busy = client.tell("ask c")?;
    // The replica closes after its answer and the client does not: to this host's kernel the connection is still open.
    assert_eq!(lab.host(1).open_connections()?, 1);
    let seen = web.ask(300)?;
    assert_eq!((seen.failed, seen.by_replica.get(&busy), seen.by_replica.len()), (0, None, 2), "{busy} {seen:?}");
    Ok(())
}

#[test]
fn open_connections_are_spread_more_evenly_than_at_random() -> TestResult {
    let lab = Lab::start(2)?;
    let _web = Cluster::start(&lab, 3)?;
    let mut client = lab.host(1).tcp_client()?;
    assert_eq!(client.hold("c", 300, SERVICE)?, ["ok"; 300]);
    let services = lab.host(1).services()?;
    let held: Vec<_> = services[0].backends.iter().map(|backend| backend.active).collect();
    // The standard deviation of three random shares would be eight; with the better of two draws it is less than one.
    // A count outside of the range comes by chance once in four billion runs.
    assert!(held.len() == 3 && held.iter().all(|held| (93..=107).contains(held)), "{held:?}");
    Ok(())
}
