//! The flags for the agent's status endpoint, its shutdown, and its log.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::Path,
    time::Duration,
};

use super::args::bounded;
use crate::{
    dataplane::{
        Error,
        kernel::{Maps, Pins},
    },
    surface::{self, AgentStatus, http},
};

/// The flags of `run` for these. Names, variables and defaults are those of `meltwater/proxymatic` where it had them.
#[derive(Debug, clap::Args)]
pub(super) struct EndpointArgs {
    #[command(flatten)]
    listen: ListenArgs,
    /// How long the agent reports TERMINATING before it stops, after SIGTERM or SIGINT.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, env = "DRAIN")]
    drain: u32,
    /// The format of the log on standard error.
    #[arg(long, value_enum, default_value = "text", env = "LOG_FORMAT")]
    pub(super) log_format: LogFormat,
}

/// The flag for the address of the endpoint. `plan show` needs it too: its port is never a service port.
#[derive(Debug, clap::Args)]
pub(super) struct ListenArgs {
    /// The address of /status, /healthz, /metrics, /v1/services, /v1/status and a page for people; empty for no
    /// endpoint.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:9090", env = "STATUS_ENDPOINT")]
    status_endpoint: String,
}

impl ListenArgs {
    /// Checks the address; `None` for no endpoint. Adds a sentence to `wrong` for a mistake.
    pub(super) fn check(&self, wrong: &mut Vec<String>) -> Option<SocketAddr> {
        let typed = self.status_endpoint.trim();
        match typed.parse() {
            Ok(address) => Some(address),
            Err(_) if typed.is_empty() => None,
            Err(_) => {
                wrong.push(format!(
                    "--status-endpoint (or STATUS_ENDPOINT) {typed}: must be an IP address and a port, such as \
                     0.0.0.0:9090 or [::]:9090, or empty for no endpoint"
                ));
                None
            }
        }
    }
}

/// The values of `--log-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LogFormat {
    /// Plain lines.
    Text,
    /// A JSON object on each line.
    Json,
}

/// The checked values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// The address of the listener; `None` for no endpoint.
    pub(super) address: Option<SocketAddr>,
    /// How long to report TERMINATING.
    pub(super) drain: Duration,
}

impl EndpointArgs {
    /// Checks the arguments and adds a sentence to `wrong` for each mistake.
    pub(super) fn check(&self, wrong: &mut Vec<String>) -> Endpoint {
        let drain = bounded("--drain", self.drain, 0, 3600, "seconds", wrong);
        let address = self.listen.check(wrong);
        Endpoint { address, drain: Duration::from_secs(drain.into()) }
    }
}

impl Endpoint {
    /// Binds the address before anything is attached, so that no other program can answer health checks.
    ///
    /// # Errors
    /// Another agent holds the pins, or another program has the address.
    pub(super) fn bind(&self, pins: &Pins) -> anyhow::Result<Option<TcpListener>> {
        let Some(address) = self.address else { return Ok(None) };
        match http::bind(address) {
            Ok(listener) => Ok(Some(listener)),
            Err(error) => {
                // Another running agent would hold the address too; its error is the more helpful one.
                pins.ensure_unlocked()?;
                Err(anyhow::anyhow!(refused(address, &error)))
            }
        }
    }
}

/// Serves a listener for the lifetime of this process.
///
/// # Errors
/// The pins cannot be read, or a thread cannot be started.
pub(super) fn serve(
    listener: TcpListener,
    bpffs: &Path,
    status: tokio::sync::watch::Receiver<AgentStatus>,
) -> anyhow::Result<()> {
    let pins = Pins::at(bpffs);
    let maps = Maps::open(&pins)?;
    let look = move |agent| surface::collect(&pins, &maps, Some(agent)).map_err(|error: Error| error.to_string());
    http::start(listener, status, Box::new(look))?;
    Ok(())
}

fn refused(address: SocketAddr, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => "another program listens there".into(),
        io::ErrorKind::AddrNotAvailable => "this host has no such address".into(),
        io::ErrorKind::PermissionDenied => "the port needs CAP_NET_BIND_SERVICE".into(),
        _ => error.to_string(),
    };
    format!(
        "--status-endpoint (or STATUS_ENDPOINT) {address}: {why}; choose another address and port, or set it to the empty string for no \
         endpoint"
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        endpoint: EndpointArgs,
    }

    fn checked(line: &[&str]) -> Result<Endpoint, Vec<String>> {
        let line = Line::parse_from([&["run"], line].concat());
        let mut wrong = Vec::new();
        let endpoint = line.endpoint.check(&mut wrong);
        if wrong.is_empty() { Ok(endpoint) } else { Err(wrong) }
    }

    #[test]
    fn default_endpoint_is_port_9090_and_empty_is_none() {
        let default = checked(&[]).unwrap();
        assert_eq!((default.address, default.drain), (Some(([0, 0, 0, 0], 9090).into()), Duration::ZERO));
        assert_eq!(checked(&["--status-endpoint", ""]).unwrap().address, None);
        assert_eq!(checked(&["--drain", "30"]).unwrap().drain, Duration::from_secs(30));
    }

    #[test]
    fn invalid_address_is_an_error_with_flag_and_remedy() {
        for typed in ["9090", ":9090", "localhost:9090", "0.0.0.0:99999"] {
            let wrong = checked(&["--status-endpoint", typed]).unwrap_err();
            let start =
                format!("--status-endpoint (or STATUS_ENDPOINT) {typed}: must be an IP address and a port, such as");
            assert!(wrong.len() == 1 && wrong[0].starts_with(&start), "{wrong:?}");
        }
        assert!(checked(&["--drain", "3601"]).unwrap_err()[0].starts_with("--drain 3601: must be 0 to 3600 seconds"));
    }

    #[test]
    fn used_address_is_an_error_with_flag_and_remedy() {
        let taken = http::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let endpoint = Endpoint { address: taken.local_addr().ok(), drain: Duration::ZERO };
        let error = endpoint.bind(&Pins::at(Path::new("/nonexistent"))).unwrap_err().to_string();
        let start = format!(
            "--status-endpoint (or STATUS_ENDPOINT) {}: another program listens there; choose another",
            taken.local_addr().unwrap()
        );
        assert!(error.starts_with(&start), "{error}");
    }
}
