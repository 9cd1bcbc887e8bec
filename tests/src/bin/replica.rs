//! One replica of the demo's applications: answers with its own name, and finishes open requests after SIGTERM.
#![expect(clippy::print_stdout, reason = "a program's answer goes to stdout")]

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::Query;
use axum::routing::get;
use clap::{Parser, ValueEnum};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

/// A small application that answers with its own name.
#[derive(Parser)]
struct Args {
    /// Address to listen on.
    #[arg(long, value_name = "IP:PORT")]
    listen: SocketAddr,
    /// The name to answer with.
    #[arg(long, env = "MESOS_TASK_ID")]
    name: String,
    /// The protocol.
    #[arg(long, value_enum, default_value = "http")]
    speaks: Speaks,
    /// Delay of each HTTP response.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    slow: u64,
    /// How long to accept connections after SIGTERM: clients learn of the drain only a little later.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    linger: u64,
    /// How long after its start to begin to listen.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    listen_after: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Speaks {
    /// HTTP: the response is the name.
    Http,
    /// Lines over TCP: each is echoed with the name in front.
    Lines,
    /// Datagrams: each is echoed with the name in front.
    Udp,
}

#[derive(Deserialize)]
struct Slow {
    #[serde(default)]
    ms: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Args { listen, name, speaks, slow, linger, listen_after } = Args::parse();
    let mut terminate = signal(SignalKind::terminate())?;
    let stopped = async move {
        terminate.recv().await;
        sleep(Duration::from_millis(linger)).await;
    };
    sleep(Duration::from_millis(listen_after)).await;
    let at = || format!("listen on {listen}");
    if let Speaks::Udp = speaks {
        let socket = UdpSocket::bind(listen).await.with_context(at)?;
        println!("replica {name} listening on {}", socket.local_addr()?);
        return tokio::select! {
            () = stopped => Ok(()),
            failed = datagrams(&socket, &name) => failed,
        };
    }
    let listener = TcpListener::bind(listen).await.with_context(at)?;
    println!("replica {name} listening on {}", listener.local_addr()?);
    match speaks {
        Speaks::Http => http(listener, name, slow, stopped).await,
        Speaks::Lines | Speaks::Udp => tokio::select! {
            () = stopped => Ok(()),
            failed = lines(&listener, &name) => failed,
        },
    }
}

async fn http(
    listener: TcpListener,
    name: String,
    always: u64,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let answer = format!("{name}\n");
    let slowly = move |Query(slow): Query<Slow>| async move {
        let takes = Duration::from_millis(always + slow.ms);
        // No delay at all instead of a delay until the timer's next tick.
        if !takes.is_zero() {
            sleep(takes).await;
        }
        answer
    };
    let app = Router::new().route("/", get(slowly.clone())).route("/slow", get(slowly));
    Ok(axum::serve(listener, app).with_graceful_shutdown(stopped).await?)
}

async fn lines(listener: &TcpListener, name: &str) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(echo(stream, name.to_owned()));
    }
}

/// Until the client closes or fails.
async fn echo(mut stream: TcpStream, name: String) -> Option<()> {
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await.ok()? {
        write.write_all(format!("{name}: {line}\n").as_bytes()).await.ok()?;
    }
    None
}

async fn datagrams(socket: &UdpSocket, name: &str) -> Result<()> {
    let mut question = [0; 1500];
    loop {
        let (length, from) = socket.recv_from(&mut question).await?;
        let said = String::from_utf8_lossy(&question[..length]);
        // A failure to answer one client does not concern the others.
        let _ = socket.send_to(format!("{name}: {said}").as_bytes(), from).await;
    }
}
