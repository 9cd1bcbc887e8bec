//! Failures of etcd, and the words and timeouts for it.

use std::time::Duration;

use reqwest::Url;

use crate::source::{
    failure::{Failure, Server},
    http::Response,
};

/// The words and timeouts for etcd.
pub(super) static ETCD: Server = Server {
    name: "etcd",
    address_flag: "--registrator",
    ca_flag: "--registrator-ca-cert",
    credentials_remedy: "give them with --registrator-credentials-file",
    // A watch may be silent for any time.
    read_timeout: None,
    whole_timeout: Duration::from_secs(30),
};

/// The largest body of an error that is read, in bytes.
const MAX_ERROR_BODY: usize = 64 << 10;

/// Returns the URL of a path of a member.
pub(super) fn path_url(endpoint: &Url, path: &str) -> Url {
    let mut url = endpoint.clone();
    url.set_path(path);
    url
}

/// Returns the failure for a response with an unexpected status.
pub(super) async fn status_failure(url: &Url, response: Response, has_credentials: bool) -> Failure {
    let status = response.status();
    let text = message(&response.body(MAX_ERROR_BODY).await.unwrap_or_default());
    let what = match Failure::access(status, has_credentials, &ETCD) {
        Some(what) => what,
        // The v3 API answers this with status 400 to a request without credentials.
        None if text.contains("user name is empty") => Failure::credentials_required(status, &ETCD),
        None => format!("answered {status}"),
    };
    Failure::new(url, if text.is_empty() { what } else { format!("{what}: {text:?}") })
}

/// Returns the beginning of a body as text.
pub(super) fn message(body: &[u8]) -> String {
    String::from_utf8_lossy(body).trim().chars().take(200).collect()
}
