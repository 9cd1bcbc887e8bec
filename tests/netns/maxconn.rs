//! `maxconn`: the limit of open connections to a backend and to a service.

use std::fs;
use std::path::Path;

use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, binary};
use serde_json::json;

use crate::fixtures::cluster::{Cluster, SERVICE};
use crate::fixtures::file_source::{FileSource, backends, replicas, service};

#[test]
fn task_maxconn_2_times_2_refuses_fifth_until_a_close() -> TestResult {
    let lab = Lab::start(2)?;
    let web = Cluster::labelled(&lab, 2, &[("maxconn", "2")])?;
    let mut client = lab.host(1).tcp_client()?;
    assert_eq!(client.hold("c", 5, SERVICE)?, ["ok", "ok", "ok", "ok", "ECONNREFUSED"]);
    assert_eq!(lab.host(1).verdict("backends_full")?, 1);
    let full = web.when_states(&["full", "full"])?;
    assert!(full.backends.iter().all(|backend| backend.active == 2), "{full:?}");

    assert_eq!(client.tell("close c1")?, "ok");
    assert_eq!(client.hold("d", 2, SERVICE)?, ["ok", "ECONNREFUSED"]);
    assert_eq!(lab.host(1).verdict("backends_full")?, 2);
    Ok(())
}

#[test]
fn backend_maxconn_5_times_3_refuses_16th_until_a_close() -> TestResult {
    let lab = Lab::start(2)?;
    let web = Cluster::labelled(&lab, 3, &[("maxconn", "5")])?;
    let mut client = lab.host(1).tcp_client()?;
    assert_eq!(client.hold("c", 15, SERVICE)?, ["ok"; 15]);
    let full = web.when_states(&["full"; 3])?;
    assert!(full.backends.iter().all(|backend| backend.active == 5), "{full:?}");
    assert_eq!(client.hold("more", 1, SERVICE)?, ["ECONNREFUSED"]);
    assert_eq!((lab.host(1).verdict("backends_full")?, lab.host(1).verdict("service_full")?), (1, 0));
    for nth in 1..=15 {
        assert_eq!(client.tell(&format!("close c{nth}"))?, "ok");
        assert_eq!(client.hold(&format!("again{nth}-"), 2, SERVICE)?, ["ok", "ECONNREFUSED"]);
    }
    assert_eq!((lab.host(1).verdict("backends_full")?, lab.host(1).open_connections()?), (16, 15));
    Ok(())
}

#[test]
fn service_maxconn_of_host_or_service_limits_connections() -> TestResult {
    let lab = Lab::start(2)?;
    let replicas = replicas(&lab, 3)?;
    let backends = backends(&replicas);
    let other = SERVICE.port() + 1;
    let own = service(&backends, &[("name", json!("own")), ("port", json!(other)), ("max-connections", json!(2))]);
    let _agent = FileSource::start(&lab, &[service(&backends, &[]), own], &["--max-connections", "4"])?;
    let mut client = lab.host(1).tcp_client()?;
    let mut refused = 0;
    for (name, to, bound) in [("c", SERVICE, 4), ("d", (SERVICE.ip(), other).into(), 2)] {
        let outcomes = client.hold(name, bound + 3, to)?;
        assert_eq!(count(&outcomes, "ok"), bound, "{outcomes:?}");
        assert!(outcomes[bound..].iter().all(|it| it == "ECONNREFUSED"), "{outcomes:?}");
        refused += 3;
        assert_eq!((lab.host(1).verdict("service_full")?, lab.host(1).verdict("backends_full")?), (refused, 0));
        assert_eq!(client.tell(&format!("close {name}1"))?, "ok");
        assert_eq!(client.hold(&format!("{name}-again"), 2, to)?, ["ok", "ECONNREFUSED"]);
        refused += 1;
    }
    Ok(())
}

#[test]
fn service_maxconn_from_the_environment_limits_connections() -> TestResult {
    let lab = Lab::start(2)?;
    let replicas = replicas(&lab, 1)?;
    let file = lab.run_dir().join("services.json");
    fs::write(&file, json!({ "services": [service(&backends(&replicas), &[])] }).to_string())?;
    // A container sets it by its environment; `env` stands in for that.
    let host = lab.host(1);
    let paths = [host.cgroup().path(), &host.pins(), &host.socket(), &file].map(|it| it.display().to_string());
    let [cgroup, pins, socket, file] = &paths;
    let agent = binary("proxymatic")?.display().to_string();
    let command = ["MAX_CONNECTIONS=3", &agent, "run", "--cgroup", cgroup, "--bpffs", pins, "--socket", socket];
    let _agent = host.spawn(Path::new("env"), &[&command, &["--file", file][..]].concat())?;
    host.agent_ready(PATIENCE)?;
    let outcomes = host.tcp_client()?.hold("c", 4, SERVICE)?;
    assert_eq!(outcomes, ["ok", "ok", "ok", "ECONNREFUSED"]);
    assert_eq!(host.verdict("service_full")?, 1);
    Ok(())
}

fn count(outcomes: &[String], wanted: &str) -> usize {
    outcomes.iter().filter(|it| *it == wanted).count()
}
