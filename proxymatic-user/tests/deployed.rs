//! What `deploy/` has for Marathon: our own app, read by the simulated one and by the agent.

#![expect(clippy::unwrap_used, reason = "a panic in a helper of a test is the report too")]

use marathon_sim::{Place, Sim};
use serde_json::{Value, json};
use tokio::process::Command;

fn definition() -> Value {
    serde_json::from_str(include_str!("../../deploy/marathon.json")).unwrap()
}

#[tokio::test]
async fn gateway_app_gives_neither_services_nor_warnings() {
    let sim = Sim::start().await.unwrap();
    let app = definition();
    let places = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|host| Place::with_ports(host, &[]));
    let tasks = sim.create_full(app.clone(), &places).unwrap();
    assert_eq!(tasks.len(), 3);

    let _ = rustls::crypto::ring::default_provider().install_default();
    let answer = reqwest::get(format!("{}/v2/apps/proxymatic", sim.url())).await.unwrap();
    let served: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    for field in ["constraints", "upgradeStrategy", "env", "args"] {
        assert_eq!(served["app"][field], app[field], "{field} as Marathon gives it back");
    }
    let line = ["-j", "plan", "show", "--marathon", &sim.url(), "--bpffs", "/nowhere"];
    let said = Command::new(env!("CARGO_BIN_EXE_proxymatic")).args(line).env_clear().output().await.unwrap();
    let plan: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!((&plan["services"], &plan["warnings"]), (&json!([]), &json!([])), "{plan}");
}

#[test]
fn gateway_app_runs_once_per_host_with_its_host_access() {
    let app = definition();
    assert_eq!(app["constraints"], json!([["hostname", "UNIQUE"]]));
    let docker = &app["container"]["docker"];
    assert_eq!((&docker["privileged"], &app["networks"]), (&json!(true), &json!([{ "mode": "host" }])));
    assert!(docker["parameters"].as_array().unwrap().contains(&json!({ "key": "pid", "value": "host" })));
    let image = docker["image"].as_str().unwrap();
    assert!(image.ends_with(concat!(":", env!("CARGO_PKG_VERSION"))), "{image}");
    let unit = include_str!("../../deploy/proxymatic-container.service");
    assert!(unit.contains(&format!("PROXYMATIC_IMAGE={image}\n")), "the unit runs another image than {image}");
}

/// Marathon keeps ceil(instances * minimumHealthCapacity) tasks, and starts at most floor(instances * (1 +
/// maximumOverCapacity)); where both are the same it wants one more than that
/// (mesosphere/marathon, `TaskReplaceBehaviour.computeRestartStrategy`). One more finds no host here.
#[test]
fn deployment_stops_an_agent_before_it_starts_the_next() {
    let strategy = &definition()["upgradeStrategy"];
    let least = strategy["minimumHealthCapacity"].as_f64().unwrap();
    assert_eq!(strategy["maximumOverCapacity"].as_f64().unwrap(), 0.0);
    for hosts in 2..=1000_u32 {
        let kept = (f64::from(hosts) * least).ceil();
        assert!(kept < f64::from(hosts), "with {hosts} hosts {kept} agents have to stay");
        assert!(kept >= 1.0, "with {hosts} hosts all agents may stop at once");
    }
}
