//! What went wrong with a request, in one sentence for the operator.

use std::{error::Error, fmt, io, time::Duration};

use reqwest::{StatusCode, Url};

use super::client::{CONNECT_TIMEOUT, READ_TIMEOUT, WHOLE_TIMEOUT};
use crate::source::tls;

/// A request that has no good answer. Printed, it is one sentence that begins with the URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// What was asked, without query and credentials.
    pub(super) url: String,
    /// What happened, as the rest of the sentence.
    pub(super) what: String,
    /// Whether the answer was that there is no such thing.
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
        Self { url: url.into(), what: what.into(), not_found: false }
    }

    /// The request could not be sent, or its answer broke off.
    pub(super) fn request(url: &Url, error: &reqwest::Error) -> Self {
        let root = root(error);
        let kind = root.downcast_ref::<io::Error>().map(io::Error::kind);
        let what = if error.is_dns() || root.to_string().contains("failed to lookup address") {
            format!("cannot be asked: its host has no address ({root}); is the name right?")
        } else if error.is_timeout() && error.is_connect() {
            format!("did not take the connection within {}", seconds(CONNECT_TIMEOUT))
        } else if error.is_timeout() {
            format!("is too slow: nothing for {}, or no end after {}", seconds(READ_TIMEOUT), seconds(WHOLE_TIMEOUT))
        } else if let Some(what) = tls::distrust(error, "--marathon-ca-cert", "--marathon") {
            what
        } else if kind == Some(io::ErrorKind::ConnectionRefused) {
            "refused the connection; does Marathon run there?".into()
        } else if error.is_connect() {
            format!("cannot be reached: {root}")
        } else if error.is_body() || error.is_decode() {
            format!("broke off in the middle of its answer ({root})")
        } else {
            format!("cannot be asked: {root}")
        };
        Self::new(url, what)
    }

    /// The answer has another status than 200.
    pub(super) fn status(url: &Url, status: StatusCode, has_credentials: bool, body: &[u8]) -> Self {
        let what = match status.as_u16() {
            401 | 403 if has_credentials => format!("does not accept the credentials ({status})"),
            401 | 403 => format!(
                "wants credentials ({status}); give them with --marathon-credentials-file or --dcos-service-account"
            ),
            404 => format!("does not exist there ({status}); is that Marathon, and the path before /v2 right?"),
            405 => format!("does not allow the request ({status}); is there a proxy between that changes headers?"),
            502 | 503 => format!("answered {status}: Marathon has no leader at the moment, or is overloaded"),
            300..=399 => format!("answered {status}, which is not followed; write the address it leads to"),
            _ => format!("answered {status}"),
        };
        let message = message(body).map_or_else(String::new, |message| format!(": {message:?}"));
        Self { not_found: status == StatusCode::NOT_FOUND, ..Self::new(url, format!("{what}{message}")) }
    }

    /// The answer is 200, but not the JSON it should be.
    pub(super) fn unreadable(url: &Url, body: &[u8], error: &serde_json::Error) -> Self {
        let what = match body.trim_ascii_start().first() {
            None => "gave an empty answer; is this Marathon?".into(),
            Some(b'<') => "answered an HTML page, not JSON; is this Marathon?".into(),
            Some(_) if error.is_eof() => "broke off in the middle of its answer (the JSON is not complete)".into(),
            Some(_) if error.is_syntax() => format!("did not answer JSON ({error}); is this Marathon?"),
            Some(_) => format!("answered JSON of another kind ({error}); is this Marathon?"),
        };
        Self::new(url, what)
    }
}

/// The beginning of what a JSON body gives as its message, if it does.
fn message(body: &[u8]) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    Some(json.get("message")?.as_str()?.chars().take(200).collect())
}

pub(super) fn root<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root
}

pub(super) fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}
