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
    /// How long every answer takes.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    slow: u64,
}

#[derive(Deserialize)]
struct Slow {
    #[serde(default)]
    ms: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Args { listen, name, slow: always } = Args::parse();
    let answer = format!("{name}\n");
    let slowly = move |Query(slow): Query<Slow>| async move {
        let takes = Duration::from_millis(always + slow.ms);
        // Not at all rather than until the timer's next tick.
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        answer
    };
    let app = Router::new().route("/", get(slowly.clone())).route("/slow", get(slowly));

    let mut terminate = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
    println!("replica {name} listening on {}", listener.local_addr()?);
    axum::serve(listener, app).with_graceful_shutdown(async move { terminate.recv().await.unwrap_or(()) }).await?;
    Ok(())
}
