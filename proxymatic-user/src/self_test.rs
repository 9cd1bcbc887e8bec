//! The self-test: connections of a process that the hooks do not know as the agent's, to a service that only it uses.
//!
//! That something is attached says little: links on a cgroup that is dying, or on that of a container, are attached too.
//! The helper is a process of its own, since the agent's own sockets are left alone; it is started before the agent gives
//! up running programs. It is client and backend at once: one datagram there and one back, within one thread.

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

/// The word on the command line that makes a process the helper.
pub const COMMAND: &str = "self-test";

/// The dummy address of RFC 7600, section 4.8: nobody has it, and nothing is ever sent to it.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// Assigned to nothing.
const PORT: u16 = 4;

/// The service that only the self-test uses.
pub const KEY: ServiceKey = ServiceKey { address: Some(IpAddr::V4(ADDRESS)), port: PORT, protocol: Protocol::Udp };

/// How long the helper may take. It gives up by itself before that.
const PATIENCE: Duration = Duration::from_secs(10);

/// The service with the helper as its one backend, which listens on this port of the loopback address.
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

/// The running helper. It ends with this process, whose end of the line it reads.
#[derive(Debug)]
pub struct Helper {
    line: UnixStream,
    process: Child,
    port: u16,
}

impl Helper {
    /// Starts it: this very program, with another word on its command line.
    ///
    /// # Errors
    /// It cannot be started, or does not say where it listens.
    pub fn start() -> io::Result<Self> {
        let (line, end) = UnixStream::pair()?;
        let end = OwnedFd::from(end);
        let process = Command::new("/proc/self/exe")
            .arg(COMMAND)
            .stdin(Stdio::from(end.try_clone()?))
            .stdout(Stdio::from(end))
            .env_clear()
            .spawn()?;
        line.set_read_timeout(Some(PATIENCE))?;
        let mut first = String::new();
        // It says no more than this until it is asked: nothing is lost with the buffer.
        BufReader::new(&line).read_line(&mut first)?;
        let port = first.trim_end().parse().map_err(|_| io::Error::other("it does not say where it listens"))?;
        Ok(Self { line, process, port })
    }

    /// The port that it listens on.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Has it dial the service for each order, and sends what came of it: why not, where it failed. Within a tokio
    /// runtime, until there are no more orders.
    pub async fn follow(mut self, mut orders: mpsc::Receiver<()>, answers: mpsc::Sender<Result<(), String>>) {
        let open = self.line.set_nonblocking(true).and_then(|()| tokio::net::UnixStream::from_std(self.line));
        let mut line = match open {
            Ok(line) => tokio::io::BufStream::new(line),
            Err(error) => return tracing::error!("cannot use the helper of the self-test: {error}"),
        };
        while orders.recv().await.is_some() {
            let asked = async {
                line.write_all(format!("{ADDRESS}:{PORT}\n").as_bytes()).await?;
                line.flush().await?;
                let mut answer = String::new();
                line.read_line(&mut answer).await?;
                Ok::<_, io::Error>(answer)
            };
            let answer = match timeout(PATIENCE, asked).await {
                Ok(Ok(answer)) if answer == "ok\n" => Ok(()),
                Ok(Ok(answer)) if !answer.is_empty() => Err(answer.trim_end().to_owned()),
                // Programs cannot be run any more, so it cannot be started again.
                _ if !matches!(self.process.try_wait(), Ok(None)) => {
                    Err("the process that makes it has ended; start the agent again".into())
                }
                _ => Err(format!("the process that makes it has not answered within {} s", PATIENCE.as_secs())),
            };
            if answers.send(answer).await.is_err() {
                return;
            }
        }
    }
}
