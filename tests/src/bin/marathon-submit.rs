//! The program `marathon-submit`: deploys apps to a real or simulated Marathon, and waits until they run.

#![expect(clippy::print_stdout, reason = "a program's output goes to stdout")]
#![expect(clippy::print_stderr, reason = "a program's errors go to stderr")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use reqwest::Client;
use serde_json::Value;
use tokio::time::sleep;

/// Deploys apps to Marathon and waits until all their tasks run and are healthy.
#[derive(Parser)]
struct Args {
    /// Marathon's URL.
    #[arg(long, value_name = "URL", env = "MARATHON_URL")]
    marathon: String,
    /// Timeout for all of it, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    wait: u64,
    /// Files with an app each, in Marathon's form, or folders of such files.
    #[arg(value_name = "FILE.json", required = true)]
    apps: Vec<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("marathon-submit: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    let apps = args.apps.iter().map(|path| read(path)).collect::<Result<Vec<_>>>()?.concat();
    // Fails if the app exists already, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().tls_certs_only([]).timeout(Duration::from_secs(10)).build()?;
    let marathon = Marathon { client, url: args.marathon.trim_end_matches('/').to_owned() };
    let until = Instant::now() + Duration::from_secs(args.wait);
    for (id, app) in &apps {
        let refused = retry(until, || marathon.put(id, app)).await.with_context(|| format!("cannot submit {id}"))?;
        ensure!(refused.is_none(), "Marathon refuses {id}: {}", refused.unwrap_or_default());
        println!("submitted {id}");
    }
    for (id, _) in &apps {
        let tasks = retry(until, || marathon.runs(id)).await.with_context(|| format!("{id} does not run"))?;
        println!("{id}: {tasks}");
    }
    Ok(())
}

/// Reads the apps of a file or of a folder, by id.
fn read(path: &Path) -> Result<Vec<(String, Value)>> {
    let at = || path.display().to_string();
    if path.is_dir() {
        let mut files = fs::read_dir(path)?.map(|it| Ok(it?.path())).collect::<Result<Vec<_>>>()?;
        files.retain(|it| it.extension().is_some_and(|it| it == "json"));
        files.sort();
        ensure!(!files.is_empty(), "{}: no .json files in it", at());
        return Ok(files.iter().map(|it| read(it)).collect::<Result<Vec<_>>>()?.concat());
    }
    let app: Value = serde_json::from_slice(&fs::read(path).with_context(at)?).with_context(at)?;
    let id = app["id"].as_str().with_context(|| format!("{}: no \"id\"", at()))?.to_owned();
    Ok(vec![(id, app)])
}

struct Marathon {
    client: Client,
    url: String,
}

impl Marathon {
    /// Idempotent: the same app again changes nothing. Marathon's response describes an invalid app.
    async fn put(&self, id: &str, app: &Value) -> Result<Option<String>> {
        // This cancels a deployment of the same app that is under way.
        let answer = self.client.put(format!("{}/v2/apps{id}?force=true", self.url)).json(app).send().await?;
        let (status, said) = (answer.status(), answer.text().await?);
        let refused = status.is_client_error().then(|| format!("{status}: {}", said.trim()));
        ensure!(status.is_success() || refused.is_some(), "Marathon answered {status}: {}", said.trim());
        Ok(refused)
    }

    /// Returns the number of tasks once all of them run.
    async fn runs(&self, id: &str) -> Result<String> {
        let answer = self.client.get(format!("{}/v2/apps{id}", self.url)).send().await?.error_for_status()?;
        let app = answer.json::<Value>().await?["app"].take();
        let count = |key: &str| app[key].as_u64().unwrap_or(0);
        let (wanted, running, healthy) = (count("instances"), count("tasksRunning"), count("tasksHealthy"));
        let checked = app["healthChecks"].as_array().is_some_and(|it| !it.is_empty());
        let well = if checked { healthy.min(running) } else { running };
        if well < wanted {
            bail!("{running} of {wanted} tasks run, {healthy} are healthy");
        }
        Ok(format!("{running} tasks run{}", if checked { " and are healthy" } else { "" }))
    }
}

async fn retry<T, F: Future<Output = Result<T>>>(until: Instant, mut attempt: impl FnMut() -> F) -> Result<T> {
    loop {
        match attempt().await {
            Err(error) if Instant::now() >= until => return Err(error),
            Err(_) => sleep(Duration::from_millis(250)).await,
            Ok(done) => return Ok(done),
        }
    }
}
