//! This project: the agent as it is shipped, with a file of services.

use std::time::Duration;

use anyhow::{Result, ensure};
use proxymatic_tests::{eventually::eventually_ok, process::Process};
use serde_json::json;

use super::task::{Service, Task};

pub(super) fn start(task: &Task<'_>, policy: &str) -> Result<Vec<Process>> {
    let service = |service: &Service| {
        let place = |port: &u16| json!({ "address": task.backend, "port": port });
        json!({
            "name": format!("service-{}", service.port),
            "port": service.port,
            "protocol": if service.udp { "udp" } else { "tcp" },
            "policy": policy,
            "backends": service.backends.iter().map(place).collect::<Vec<_>>(),
        })
    };
    let services: Vec<_> = task.services.iter().map(service).collect();
    let file = task.write("services.json", &json!({ "services": services }).to_string())?;
    let agent = task.host.agent_of(task.host.cgroup(), &["--file", &file])?;
    eventually_ok("all services are there", Duration::from_secs(60), || {
        let there = task.host.services()?.len();
        ensure!(there == services.len(), "{there} of {}: {}", services.len(), agent.log());
        Ok(())
    })?;
    Ok(vec![agent])
}
