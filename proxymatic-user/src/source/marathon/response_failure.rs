//! Failures of Marathon: a status other than 200, or a body that is not the expected JSON.

use std::time::Duration;

use reqwest::{StatusCode, Url};

use crate::source::failure::{Failure, Server};

/// The words and timeouts for Marathon.
pub(super) static MARATHON: Server = Server {
    name: "Marathon",
    address_flag: "--marathon",
    ca_flag: "--marathon-ca-cert",
    credentials_remedy: "give them with --marathon-credentials-file or --dcos-service-account",
    // A listing of 20,000 tasks can take long to begin.
    read_timeout: Some(Duration::from_secs(60)),
    whole_timeout: Duration::from_secs(300),
};

/// Returns the failure for a response with a status other than 200.
pub(super) fn status_failure(url: &Url, status: StatusCode, has_credentials: bool, body: &[u8]) -> Failure {
    let what = Failure::access(status, has_credentials, &MARATHON).unwrap_or_else(|| match status.as_u16() {
        404 => format!("does not exist there ({status}); is that Marathon, and the path before /v2 right?"),
        405 => format!("does not allow the request ({status}); does a proxy on the way change headers?"),
        502 | 503 => format!("answered {status}: Marathon has no leader at the moment, or is overloaded"),
        300..=399 => format!("answered {status}, which is not followed; write the address that it redirects to"),
        _ => format!("answered {status}"),
    });
    let message = message(body).map_or_else(String::new, |message| format!(": {message:?}"));
    Failure { not_found: status == StatusCode::NOT_FOUND, ..Failure::new(url, format!("{what}{message}")) }
}

/// Returns the failure for a body that is not the expected JSON.
pub(super) fn unreadable(url: &Url, body: &[u8], error: &serde_json::Error) -> Failure {
    let what = match body.trim_ascii_start().first() {
        None => "sent an empty response; is this Marathon?".into(),
        Some(b'<') => "answered an HTML page, not JSON; is this Marathon?".into(),
        Some(_) if error.is_eof() => "broke off in the middle of its response (the JSON is not complete)".into(),
        Some(_) if error.is_syntax() => format!("did not answer JSON ({error}); is this Marathon?"),
        Some(_) => format!("answered JSON of another kind ({error}); is this Marathon?"),
    };
    Failure::new(url, what)
}

/// Returns the beginning of the message in a JSON body, if it has one.
fn message(body: &[u8]) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    Some(json.get("message")?.as_str()?.chars().take(200).collect())
}
