//! Health checks of running tasks, performed by the simulator.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};

use super::super::cluster::Cluster;
use super::super::state::Shared;
use super::super::task::{Task, TaskState};
use super::docker::image;

const PERIOD: Duration = Duration::from_secs(1);
/// Timeout of one check.
const PATIENCE: Duration = Duration::from_secs(1);

/// One check of one task.
struct Check {
    task: String,
    nth: usize,
    at: String,
    /// The path of the request; `None` if a connection is enough.
    path: Option<String>,
    /// The latest result.
    before: Option<bool>,
}

/// Performs all checks each second, until it is aborted.
pub(super) async fn follow(shared: Arc<Shared>) {
    let mut clock = interval(PERIOD);
    // No check uses TLS.
    let Ok(client) = Client::builder().tls_certs_only([]).timeout(PATIENCE).build() else { return };
    loop {
        clock.tick().await;
        let all = shared.look(|inner| of(&inner.cluster));
        futures_util::future::join_all(all.into_iter().map(|check| make(check, &client, &shared))).await;
    }
}

async fn make(check: Check, client: &Client, shared: &Shared) {
    let alive = match &check.path {
        None => timeout(PATIENCE, TcpStream::connect(&check.at)).await.is_ok_and(|it| it.is_ok()),
        Some(path) => {
            let answer = client.get(format!("http://{}{path}", check.at)).send().await;
            answer.is_ok_and(|it| (200..400).contains(&it.status().as_u16()))
        }
    };
    // A check without any success yet belongs to a starting task.
    let news = check.before != Some(alive) && (alive || check.before.is_some());
    if news {
        // The task may be gone by now.
        let _ = shared.change(|inner| inner.cluster.set_health(&check.task, Some(check.nth), Some(alive)));
    }
}

fn of(cluster: &Cluster) -> Vec<Check> {
    let apps = cluster.apps().filter(|(_, app)| image(&app.current().json).is_some());
    let tasks = apps.flat_map(|(_, app)| app.tasks());
    tasks.filter(|task| task.state == TaskState::TaskRunning).flat_map(of_task).collect()
}

fn of_task(task: &Task) -> Vec<Check> {
    let checks = task.version.json.get("healthChecks").and_then(Value::as_array);
    let check = |(nth, check): (usize, &Value)| {
        let port = task.ports.get(usize::try_from(check["portIndex"].as_u64().unwrap_or(0)).ok()?)?;
        let host = task
            .host
            .parse()
            .map_or_else(|_| format!("{}:{port}", task.host), |ip| SocketAddr::new(ip, *port).to_string());
        let protocol = check["protocol"].as_str().unwrap_or("HTTP");
        let path = protocol.ends_with("HTTP").then(|| check["path"].as_str().unwrap_or("/").to_owned());
        // Neither commands nor TLS are simulated: such a check has no result.
        let known = protocol.ends_with("HTTP") || protocol.ends_with("TCP");
        let before = task.health.get(nth).and_then(Option::as_ref).map(|it| it.alive);
        known.then(|| Check { task: task.id.clone(), nth, at: host, path, before })
    };
    checks.into_iter().flatten().enumerate().filter_map(check).collect()
}
