//! One replica of the demo's application: answers with its own name, finishes what is open when asked to stop.
#![expect(clippy::print_stdout, reason = "a program's answer goes to stdout")]

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::Query;
use axum::routing::get;
use clap::Parser;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// A small HTTP application that answers with its own name.
#[derive(Parser)]
struct Args {
    /// Where to listen.
    #[arg(long, value_name = "IP:PORT")]
    listen: SocketAddr,
    /// What to answer.
    #[arg(long)]
    name: String,
}

#[derive(Deserialize)]
struct Slow {
    #[serde(default)]
    ms: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Args { listen, name } = Args::parse();
    let answer = format!("{name}\n");
    let slowly = answer.clone();
    let app = Router::new().route("/", get(move || async { answer })).route(
        "/slow",
        get(move |Query(slow): Query<Slow>| async move {
            tokio::time::sleep(Duration::from_millis(slow.ms)).await;
            slowly
        }),
    );

    let mut terminate = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
    println!("replica {name} listening on {}", listener.local_addr()?);
    axum::serve(listener, app).with_graceful_shutdown(async move { terminate.recv().await.unwrap_or(()) }).await?;
    Ok(())
}
