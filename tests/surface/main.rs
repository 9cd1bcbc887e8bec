//! The views of an agent for people and monitoring, with real programs: a browser, a terminal, Prometheus. All need
//! root.

/// The page.
mod browser;
/// Metrics, rules and dashboard.
mod prometheus;
/// The live screen.
mod terminal;

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use proxymatic_tests::{
    lab::{Host, Lab, PATIENCE},
    process::Process,
};
use serde_json::{Value, json};

/// Starts an agent on host 1 that serves these services, and returns when it does.
fn serve(lab: &Lab, services: &Value) -> Result<Process> {
    let file = lab.run_dir().join("services.json");
    fs::write(&file, json!({ "services": services }).to_string())?;
    let host = lab.host(1);
    let agent = host.agent_of(host.cgroup(), &["--file", file.to_str().context("a path that is not UTF-8")?])?;
    host.agent_ready(PATIENCE)?;
    Ok(agent)
}

/// Runs a future on a thread inside the namespace of a host.
fn within<T: Send>(host: &Host, future: impl Future<Output = Result<T>> + Send) -> Result<T> {
    host.net().enter(|| tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future))?
}

/// A folder of the checkout.
fn checkout() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate is in the checkout")
}
