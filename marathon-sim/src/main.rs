//! The program `marathon-sim`: a simulated Marathon with a simulated cluster, controlled below `/sim`.

#![expect(clippy::print_stdout, reason = "the one line with its address is this program's output")]
#![expect(clippy::print_stderr, reason = "this program has no log: the error that ends it goes to stderr")]

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use marathon_sim::{Dialect, Options, serve};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::signal::ctrl_c;
use tokio::signal::unix::{SignalKind, signal};

/// A simulated Marathon (1.8 and later) with server-sent events.
#[derive(Debug, Parser)]
struct Args {
    /// Address to listen on; port 0 picks a free one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Address of another node of the same cluster, a standby until it leads. Can be repeated.
    #[arg(long, value_name = "ADDR:PORT")]
    node: Vec<SocketAddr>,
    /// The leader's name in responses, if it is not the listening address.
    #[arg(long, value_name = "HOST:PORT")]
    name: Option<String>,
    /// The Marathon version whose JSON is written: 1.3, 1.4, 1.5 or 1.8.
    #[arg(long, value_name = "VERSION", default_value = "1.8", value_parser = dialect)]
    dialect: Dialect,
    /// The socket of a Docker that runs the tasks of apps from /v2/apps as containers; they end with this program.
    #[arg(long, value_name = "SOCKET", requires = "hostname")]
    docker: Option<PathBuf>,
    /// The host of those tasks: a name or an address of that Docker's host.
    #[arg(long, value_name = "HOST")]
    hostname: Option<String>,
    /// The apps at the start: a JSON array in the form of POST /sim/apps.
    #[arg(long, value_name = "FILE.json")]
    apps: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("marathon-sim: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn dialect(text: &str) -> Result<Dialect, serde_json::Error> {
    serde_json::from_value(text.into())
}

async fn run(args: Args) -> Result<()> {
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("--listen {}", args.listen))?;
    let sim = serve(listener, Options { leader: args.name, dialect: args.dialect, ..Options::default() })?;
    let mut nodes = Vec::new();
    for address in &args.node {
        let listener = TcpListener::bind(address).await.with_context(|| format!("--node {address}"))?;
        nodes.push(sim.node_on(listener)?);
    }
    if let Some(path) = &args.apps {
        let at = || format!("--apps {}", path.display());
        let apps: Vec<Value> = serde_json::from_slice(&fs::read(path).with_context(at)?).with_context(at)?;
        for (n, app) in apps.into_iter().enumerate() {
            sim.command("apps", app).with_context(|| format!("{}, entry {n}", at()))?;
        }
    }
    let tasks = args.docker.as_ref().zip(args.hostname.clone());
    let mesos = tasks.map(|(socket, host)| sim.run_containers(socket, host)).transpose().context("--docker")?;
    println!("marathon-sim listening on {}", sim.url());
    // The first process of a container gets neither signal unless it has a handler for it.
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    tokio::select! {
        _ = terminate.recv() => {}
        () = sim.exits() => {}
        interrupted = ctrl_c() => interrupted.context("waiting for an interrupt")?,
    }
    if let Some(mesos) = mesos {
        mesos.stop().await;
    }
    Ok(())
}
