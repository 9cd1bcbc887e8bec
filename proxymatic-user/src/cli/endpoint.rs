//! The flags of what the agent shows while it runs: its status endpoint, its last seconds, its log.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::Path,
    time::Duration,
};

use super::config::bounded;
use crate::{
    dataplane::{
        Error,
        kernel::{Maps, Pins},
    },
    surface::{self, AgentStatus, http},
};

/// What `run` takes for it. Names, variables and defaults that `meltwater/proxymatic` had are kept.
#[derive(Debug, clap::Args)]
pub(super) struct EndpointArgs {
    /// Where /status, /healthz, /metrics, /v1/services, /v1/status and a page for people are; empty for nowhere.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:9090", env = "STATUS_ENDPOINT")]
    status_endpoint: String,
    /// How long the agent says TERMINATING before it leaves, once it is asked to.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, env = "DRAIN")]
    drain: u32,
    /// How the log is written, to standard error.
    #[arg(long, value_enum, default_value = "text", env = "LOG_FORMAT")]
    pub(super) log_format: LogFormat,
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object on each line.
    Json,
}

/// What is true of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Where to listen; `None` for nowhere.
    pub(super) address: Option<SocketAddr>,
    /// How long to say that the agent leaves.
    pub(super) drain: Duration,
}

impl EndpointArgs {
    /// Checks what was typed.
    pub(super) fn check(&self, wrong: &mut Vec<String>) -> Endpoint {
        let drain = bounded("--drain", self.drain, 0, 3600, "seconds", wrong);
        let typed = self.status_endpoint.trim();
        let address = match typed.parse() {
            Ok(address) => Some(address),
            Err(_) if typed.is_empty() => None,
            Err(_) => {
                wrong.push(format!(
                    "--status-endpoint (or STATUS_ENDPOINT) {typed}: must be an IP address and a port, such as \
                     0.0.0.0:9090 or [::]:9090, or empty for no endpoint"
                ));
                None
            }
        };
        Endpoint { address, drain: Duration::from_secs(drain.into()) }
    }
}

impl Endpoint {
    /// Takes the address before anything is attached: a health check must never be answered by somebody else.
    ///
    /// # Errors
    /// Another agent has the pins, or somebody has the address.
    pub(super) fn bind(&self, pins: &Pins) -> anyhow::Result<Option<TcpListener>> {
        let Some(address) = self.address else { return Ok(None) };
        match http::bind(address) {
            Ok(listener) => Ok(Some(listener)),
            Err(error) => {
                // An agent that is there already has the address too, and is the better thing to name.
                pins.ensure_unlocked()?;
                Err(anyhow::anyhow!(refused(address, &error)))
            }
        }
    }
}

/// Answers on a listener for as long as this process runs.
///
/// # Errors
/// The pins cannot be read, or no thread can be started.
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
        io::ErrorKind::PermissionDenied => "that port is for programs with CAP_NET_BIND_SERVICE".into(),
        _ => error.to_string(),
    };
    format!(
        "--status-endpoint (or STATUS_ENDPOINT) {address}: {why}; name another address and port, or give it empty for no \
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
    fn the_default_is_that_of_the_container_it_replaces_and_empty_is_off() {
        let default = checked(&[]).unwrap();
        assert_eq!((default.address, default.drain), (Some(([0, 0, 0, 0], 9090).into()), Duration::ZERO));
        assert_eq!(checked(&["--status-endpoint", ""]).unwrap().address, None);
        assert_eq!(checked(&["--drain", "30"]).unwrap().drain, Duration::from_secs(30));
    }

    #[test]
    fn what_is_no_address_is_said_with_flag_variable_and_remedy() {
        for typed in ["9090", ":9090", "localhost:9090", "0.0.0.0:99999"] {
            let wrong = checked(&["--status-endpoint", typed]).unwrap_err();
            let said =
                format!("--status-endpoint (or STATUS_ENDPOINT) {typed}: must be an IP address and a port, such as");
            assert!(wrong.len() == 1 && wrong[0].starts_with(&said), "{wrong:?}");
        }
        assert!(checked(&["--drain", "3601"]).unwrap_err()[0].starts_with("--drain 3601: must be 0 to 3600 seconds"));
    }

    #[test]
    fn an_address_that_is_taken_is_said_with_the_flag_and_the_remedy() {
        let taken = http::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let endpoint = Endpoint { address: taken.local_addr().ok(), drain: Duration::ZERO };
        let error = endpoint.bind(&Pins::at(Path::new("/nonexistent"))).unwrap_err().to_string();
        let said = format!(
            "--status-endpoint (or STATUS_ENDPOINT) {}: another program listens there; name another",
            taken.local_addr().unwrap()
        );
        assert!(error.starts_with(&said), "{error}");
    }
}
