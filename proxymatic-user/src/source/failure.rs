//! The failure of a request, as one sentence for the operator.

use std::{error::Error, fmt, io, time::Duration};

use reqwest::{StatusCode, Url};

use super::tls;

/// The longest time to connect to a server.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A kind of server: its timeouts, and the words that errors need for it.
#[derive(Debug)]
pub(super) struct Server {
    /// The name of the software.
    pub(super) name: &'static str,
    /// The flag that names the server.
    pub(super) address_flag: &'static str,
    /// The flag that names certificate authorities.
    pub(super) ca_flag: &'static str,
    /// The remedy if the server requires credentials.
    pub(super) credentials_remedy: &'static str,
    /// The longest pause within a response; `None` for no limit.
    pub(super) read_timeout: Option<Duration>,
    /// The longest time for a whole response, so that a slow one does not delay the next for ever.
    pub(super) whole_timeout: Duration,
}

/// The failure of a request. Printed, it is one sentence that begins with the URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The URL of the request, without query and credentials.
    pub(super) url: String,
    /// What happened, as the rest of the sentence.
    pub(super) what: String,
    /// Whether the server responded that the resource does not exist.
    pub(super) not_found: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.url, self.what)
    }
}

impl Failure {
    pub(super) fn new(url: &Url, what: impl Into<String>) -> Self {
        let mut url = url.clone();
        url.set_query(None);
        Self::without_url(url.as_str(), what)
    }

    /// Returns a failure that belongs to no single URL; `subject` stands in its place.
    pub(super) fn without_url(subject: &str, what: impl Into<String>) -> Self {
        Self { url: subject.into(), what: what.into(), not_found: false }
    }

    /// Returns the failure of a request that could not be sent, or whose response broke off.
    pub(super) fn request(url: &Url, error: &reqwest::Error, server: &Server) -> Self {
        let root = root_cause(error);
        let kind = root.downcast_ref::<io::Error>().map(io::Error::kind);
        let what = if error.is_dns() || root.to_string().contains("failed to lookup address") {
            format!("cannot be reached: its host has no address ({root}); is the name right?")
        } else if error.is_timeout() && error.is_connect() {
            format!("did not accept the connection within {}", seconds(CONNECT_TIMEOUT))
        } else if error.is_timeout() {
            let whole = seconds(server.whole_timeout);
            match server.read_timeout {
                Some(read) => {
                    format!("timed out: no data for {}, or response not complete after {whole}", seconds(read))
                }
                None => format!("timed out: response not complete after {whole}"),
            }
        } else if let Some(what) = tls::distrust(error, server.ca_flag, server.address_flag) {
            what
        } else if kind == Some(io::ErrorKind::ConnectionRefused) {
            format!("refused the connection; does {} run there?", server.name)
        } else if error.is_body() || error.is_decode() {
            format!("broke off in the middle of its response ({root})")
        } else {
            format!("cannot be reached: {root}")
        };
        Self::new(url, what)
    }

    /// Returns the rest of the sentence if the server did not accept the credentials of a request, or requires some.
    pub(super) fn access(status: StatusCode, has_credentials: bool, server: &Server) -> Option<String> {
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if has_credentials => {
                Some(format!("does not accept the credentials ({status})"))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Some(Self::credentials_required(status, server)),
            _ => None,
        }
    }

    /// Returns the rest of the sentence for a server that requires credentials.
    pub(super) fn credentials_required(status: StatusCode, server: &Server) -> String {
        format!("requires credentials ({status}); {}", server.credentials_remedy)
    }

    /// Joins the failures of all endpoints.
    pub(super) fn join(failures: Vec<Self>) -> Self {
        let mut failures = failures.into_iter();
        let Some(mut first) = failures.next() else { return Self::without_url("source", "has no URL to ask") };
        for other in failures {
            first.what = format!("{}; {other}", first.what);
            first.not_found |= other.not_found;
        }
        first
    }
}

/// Returns the last error of a chain.
pub(super) fn root_cause<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root
}

pub(super) fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}
