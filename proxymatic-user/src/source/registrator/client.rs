//! Bytes off sockets: asks the members of the cluster in turn, by whichever of etcd's two APIs knows the folder.

use std::{
    error::Error,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use reqwest::{RequestBuilder, Response, StatusCode, Url, header::AUTHORIZATION, redirect::Policy};
use serde_json::{Value, json};

use super::{
    config::Config,
    login::Login,
    wire::{self, Entry, Refused},
};
use crate::source::{credentials::Credentials, tls};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest time for a whole answer.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer.
const MAX_BODY: usize = 64 << 20;
/// The longest line of a watch. What is longer is a change as well.
const MAX_LINE: usize = 1 << 20;

/// What helps who is not let in.
const REMEDY: &str = "give them with --registrator-credentials-file";

/// A request without a good answer: one sentence that begins with the URL.
#[derive(Clone, Debug)]
pub(super) struct Failure(pub(super) String);

impl Failure {
    pub(super) fn new(url: &Url, what: impl std::fmt::Display) -> Self {
        let mut url = url.clone();
        url.set_query(None);
        Self(format!("{url} {what}"))
    }

    fn request(url: &Url, error: &reqwest::Error) -> Self {
        if let Some(what) = tls::distrust(error, "--registrator-ca-cert", "--registrator") {
            return Self::new(url, what);
        }
        let mut root: &(dyn Error + 'static) = error;
        while let Some(source) = root.source() {
            root = source;
        }
        let kind = root.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        match kind {
            _ if error.is_timeout() => Self::new(url, "is too slow"),
            Some(std::io::ErrorKind::ConnectionRefused) => {
                Self::new(url, "refused the connection; does etcd run there?")
            }
            _ if error.is_body() || error.is_decode() => Self::new(url, format!("broke off in its answer ({root})")),
            _ => Self::new(url, format!("cannot be reached: {root}")),
        }
    }

    pub(super) async fn status(url: &Url, response: Response, has_credentials: bool) -> Self {
        let status = response.status();
        let body = whole(url, response).await.unwrap_or_default();
        let text: String = String::from_utf8_lossy(&body).trim().chars().take(200).collect();
        let what = match status.as_u16() {
            401 | 403 if has_credentials => format!("does not accept the credentials ({status})"),
            401 | 403 => format!("wants credentials ({status}); {REMEDY}"),
            // What v3 says where nobody says who he is, and that with status 400.
            _ if text.contains("user name is empty") => format!("wants credentials ({status}); {REMEDY}"),
            _ => format!("answered {status}"),
        };
        Self::new(url, if text.is_empty() { what } else { format!("{what}: {text:?}") })
    }
}

/// Everything below the folder, and from where on to watch it.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    pub(super) entries: Vec<Entry>,
    endpoint: Url,
    watch: Watch,
}

#[derive(Clone, Copy, Debug)]
enum Watch {
    V2 { after: u64 },
    V3 { after: u64 },
}

#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    endpoints: Vec<Url>,
    prefix: String,
    credentials: Option<Credentials>,
    login: Login,
    /// The one that answered last is asked first.
    preferred: AtomicUsize,
}

impl Client {
    pub(super) fn new(config: &Config) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("proxymatic/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(Duration::from_secs(15));
        let http = tls::set_up(http, config.access.ca.as_deref(), config.is_tls()).build()?;
        let (endpoints, prefix) = (config.endpoints.clone(), config.prefix.clone());
        let credentials = config.access.credentials.clone();
        Ok(Self { http, endpoints, prefix, credentials, login: Login::default(), preferred: AtomicUsize::new(0) })
    }

    /// Everything below the folder.
    pub(super) async fn list(&self) -> Result<Listing, Failure> {
        let first = self.preferred.load(Ordering::Relaxed);
        let in_turn = self.endpoints.iter().enumerate().cycle().skip(first).take(self.endpoints.len());
        let mut failures = Vec::new();
        for (index, endpoint) in in_turn {
            match self.list_from(endpoint).await {
                Ok(listing) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(listing);
                }
                Err(Failure(reason)) => failures.push(reason),
            }
        }
        Err(Failure(failures.join("; ")))
    }

    /// v2 where it knows the folder, since that is what registrator writes; else v3 where that does. From 3.4 on, etcd
    /// has v2 only where it is told to.
    async fn list_from(&self, endpoint: &Url) -> Result<Listing, Failure> {
        let listing = |(entries, watch)| Listing { entries, endpoint: endpoint.clone(), watch };
        let two = self.list_v2(endpoint).await?;
        if let Some((entries, _)) = &two
            && !entries.is_empty()
        {
            return two.map(listing).ok_or_else(|| Failure::new(endpoint, "is not there"));
        }
        let three = self.list_v3(endpoint).await?;
        let found = match (two, three) {
            (_, Some(three)) if !three.0.is_empty() => Some(three),
            (Some(two), _) => Some(two),
            (None, three) => three,
        };
        found.map(listing).ok_or_else(|| Failure::new(endpoint, "has neither /v2/keys nor /v3/kv; is that etcd?"))
    }

    /// `None` where there is no such API.
    async fn list_v2(&self, endpoint: &Url) -> Result<Option<(Vec<Entry>, Watch)>, Failure> {
        // From the leader: a member that is cut off knows only what was.
        let url = self.v2(endpoint, &[("recursive", "true"), ("quorum", "true")]);
        let response = send(&url, self.get(&url).timeout(WHOLE_TIMEOUT)).await?;
        let index = response.headers().get("X-Etcd-Index").and_then(|index| index.to_str().ok()?.parse::<u64>().ok());
        match response.status() {
            StatusCode::OK => {
                let after = index.ok_or_else(|| Failure::new(&url, "gave no X-Etcd-Index; is that etcd?"))?;
                let body = whole(&url, response).await?;
                let entries = wire::v2_entries(&body).map_err(|what| Failure::new(&url, what))?;
                Ok(Some((entries, Watch::V2 { after })))
            }
            StatusCode::NOT_FOUND => {
                let body = whole(&url, response).await?;
                match serde_json::from_slice(&body) {
                    Ok(Refused { code: Refused::NOT_FOUND, index }) => {
                        Ok(Some((Vec::new(), Watch::V2 { after: index })))
                    }
                    _ => Ok(None),
                }
            }
            _ => Err(Failure::status(&url, response, self.credentials.is_some()).await),
        }
    }

    /// `None` where there is no such API.
    async fn list_v3(&self, endpoint: &Url) -> Result<Option<(Vec<Entry>, Watch)>, Failure> {
        let url = at(endpoint, "/v3/kv/range");
        let (key, range_end) = wire::v3_range(&self.prefix);
        let body = json!({ "key": key, "range_end": range_end });
        let response = self.post(endpoint, &url, &body, Some(WHOLE_TIMEOUT)).await?;
        match response.status() {
            StatusCode::OK => {
                let body = whole(&url, response).await?;
                let (entries, after) = wire::v3_entries(&body).map_err(|what| Failure::new(&url, what))?;
                Ok(Some((entries, Watch::V3 { after })))
            }
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(Failure::status(&url, response, self.credentials.is_some()).await),
        }
    }

    /// Waits until something below the folder changes, or may have.
    pub(super) async fn changed(&self, listing: &Listing) -> Result<(), Failure> {
        match listing.watch {
            Watch::V2 { after } => self.changed_v2(&listing.endpoint, after).await,
            Watch::V3 { after } => self.changed_v3(&listing.endpoint, after).await,
        }
    }

    async fn changed_v2(&self, endpoint: &Url, after: u64) -> Result<(), Failure> {
        let index = after.saturating_add(1).to_string();
        let url = self.v2(endpoint, &[("wait", "true"), ("recursive", "true"), ("waitIndex", &index)]);
        let mut response = send(&url, self.get(&url)).await?;
        if response.status() != StatusCode::OK {
            let status = response.status();
            let body = whole(&url, response).await?;
            return match serde_json::from_slice(&body) {
                Ok(Refused { code: Refused::CLEARED, .. }) => Ok(()),
                _ => Err(Failure::new(&url, format!("cannot be watched: it answered {status}"))),
            };
        }
        // The head comes at once, the body with the event.
        match response.chunk().await.map_err(|error| Failure::request(&url, &error))? {
            Some(_) => Ok(()),
            None => Err(Failure::new(&url, "ended the watch")),
        }
    }

    async fn changed_v3(&self, endpoint: &Url, after: u64) -> Result<(), Failure> {
        let url = at(endpoint, "/v3/watch");
        let (key, range_end) = wire::v3_range(&self.prefix);
        let start_revision = after.saturating_add(1).to_string();
        let body =
            json!({ "create_request": { "key": key, "range_end": range_end, "start_revision": start_revision } });
        let mut response = self.post(endpoint, &url, &body, None).await?;
        if response.status() != StatusCode::OK {
            return Err(Failure::status(&url, response, self.credentials.is_some()).await);
        }
        let mut line = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| Failure::request(&url, &error))? {
            for part in chunk.split_inclusive(|byte| *byte == b'\n') {
                line.extend_from_slice(part);
                if line.len() > MAX_LINE {
                    return Ok(());
                }
                if part.ends_with(b"\n") {
                    if wire::v3_changed(&line).map_err(|what| Failure::new(&url, what))? {
                        return Ok(());
                    }
                    line.clear();
                }
            }
        }
        Err(Failure::new(&url, "ended the watch"))
    }

    /// A question by the v2 API, which takes credentials with each.
    fn get(&self, url: &Url) -> RequestBuilder {
        let request = self.http.get(url.clone());
        match &self.credentials {
            Some(Credentials { user, password }) => request.basic_auth(user, Some(password)),
            None => request,
        }
    }

    /// A question by the v3 API, which gives a token for credentials. One that is refused is asked for anew, once.
    async fn post(
        &self,
        endpoint: &Url,
        url: &Url,
        body: &Value,
        timeout: Option<Duration>,
    ) -> Result<Response, Failure> {
        let request = || {
            let request = self.http.post(url.clone()).json(body);
            timeout.into_iter().fold(request, RequestBuilder::timeout)
        };
        let Some(credentials) = &self.credentials else { return send(url, request()).await };
        loop {
            let known = self.login.token();
            let token = match &known {
                Some(token) => Some(token.clone()),
                None => self.login.log_in(&self.http, endpoint, credentials).await?,
            };
            let authorized = token.iter().fold(request(), |request, token| request.header(AUTHORIZATION, token));
            let response = send(url, authorized).await?;
            let refused = matches!(response.status().as_u16(), 400 | 401 | 403);
            if !refused || known.is_none() {
                return Ok(response);
            }
            self.login.forget();
        }
    }

    fn v2(&self, endpoint: &Url, query: &[(&str, &str)]) -> Url {
        let mut url = at(endpoint, &format!("/v2/keys{}", self.prefix));
        url.query_pairs_mut().extend_pairs(query);
        url
    }
}

pub(super) fn at(endpoint: &Url, path: &str) -> Url {
    let mut url = endpoint.clone();
    url.set_path(path);
    url
}

pub(super) async fn send(url: &Url, request: RequestBuilder) -> Result<Response, Failure> {
    request.send().await.map_err(|error| Failure::request(url, &error))
}

pub(super) async fn whole(url: &Url, mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| Failure::request(url, &error))? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(Failure::new(url, format!("answered more than {} MiB", MAX_BODY >> 20)));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
