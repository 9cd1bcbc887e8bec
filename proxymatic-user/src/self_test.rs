//! The self-test: connects through the hooks to a service that only the self-test uses.
//!
//! It is needed because attached hooks need not run: the cgroup may be dying, or be that of a container. A helper
//! process makes the connections, because hooks bypass the agent's own sockets; it starts before the agent gives up
//! running programs. The helper is client and backend at once, and exchanges datagrams within one thread.

mod cgroup_check;
mod helper;

pub use cgroup_check::is_inside;
pub use helper::answer;

use std::{
    io::{self, BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
    time::timeout,
};

use crate::model::{Backend, Protocol, Service, ServiceKey, State, Weight};

/// The command that makes a process the helper.
pub const COMMAND: &str = "self-test";

/// The dummy address of RFC 7600, section 4.8, which no host has and nothing is ever sent to.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// A port that is assigned to no protocol.
const PORT: u16 = 4;

/// The key of the service that only the self-test uses.
pub const KEY: ServiceKey = ServiceKey { address: Some(IpAddr::V4(ADDRESS)), port: PORT, protocol: Protocol::Udp };

/// The timeout of one self-test. The helper gives up before that.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the service, whose only backend is the helper at this port of the loopback address.
pub fn service(port: u16) -> Arc<Service> {
    let backend = Backend {
        task: "self-test".into(),
        address: Ipv4Addr::LOCALHOST.into(),
        port,
        weight: Weight::default(),
        maxconn: 0,
        state: State::Active,
    };
    Arc::new(Service { name: "self-test".into(), backends: vec![backend], ..Service::default() })
}

/// The running helper. It ends with this process, because then its standard input closes.
#[derive(Debug)]
pub struct Helper {
    line: UnixStream,
    process: Child,
    port: u16,
}

impl Helper {
    /// Starts the helper: this program with another command.
    ///
    /// # Errors
    /// Fails if the helper cannot be started, or does not print its port.
    pub fn start() -> io::Result<Self> {
        let (line, end) = UnixStream::pair()?;
        let end = OwnedFd::from(end);
        let process = Command::new("/proc/self/exe")
            .arg(COMMAND)
            .stdin(Stdio::from(end.try_clone()?))
            .stdout(Stdio::from(end))
            .env_clear()
            .spawn()?;
        line.set_read_timeout(Some(TIMEOUT))?;
        let mut first = String::new();
        // The helper writes one line before the first request, so the dropped buffer holds nothing else.
        BufReader::new(&line).read_line(&mut first)?;
        let port = first.trim_end().parse().map_err(|_| io::Error::other("the helper did not print its port"))?;
        Ok(Self { line, process, port })
    }

    /// The port of the helper's backend.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Makes the helper connect to the service for each order, and sends the result with the reason of a failure.
    /// Runs until
    /// `orders` closes; needs a tokio runtime.
    pub async fn follow(mut self, mut orders: mpsc::Receiver<()>, answers: mpsc::Sender<Result<(), String>>) {
        let open = self.line.set_nonblocking(true).and_then(|()| tokio::net::UnixStream::from_std(self.line));
        let mut line = match open {
            Ok(line) => tokio::io::BufStream::new(line),
            Err(error) => return tracing::error!("cannot talk to the helper of the self-test: {error}"),
        };
        while orders.recv().await.is_some() {
            let asked = async {
                line.write_all(format!("{ADDRESS}:{PORT}\n").as_bytes()).await?;
                line.flush().await?;
                let mut answer = String::new();
                line.read_line(&mut answer).await?;
                Ok::<_, io::Error>(answer)
            };
            let answer = match timeout(TIMEOUT, asked).await {
                Ok(Ok(answer)) if answer == "ok\n" => Ok(()),
                Ok(Ok(answer)) if !answer.is_empty() => Err(answer.trim_end().to_owned()),
                // The agent cannot run programs any more, so it cannot start another helper.
                _ if !matches!(self.process.try_wait(), Ok(None)) => {
                    Err("its helper process has ended; restart the agent".into())
                }
                _ => Err(format!("its helper process has not answered within {} s", TIMEOUT.as_secs())),
            };
            if answers.send(answer).await.is_err() {
                return;
            }
        }
    }
}
