//! The client of etcd: sends requests to the members of the cluster in turn, by the one of etcd's two APIs that has the
//! folder.

use std::time::Duration;

use reqwest::{RequestBuilder, StatusCode, Url};
use serde_json::{Value, json};

use super::{
    config::Config,
    login::{Login, MemberLogin},
    response_failure::{ETCD, path_url, status_failure},
    wire::{self, Entry, ErrorBody},
};
use crate::source::{
    credentials::Credentials,
    failure::Failure,
    http::{Endpoints, HttpClient, RequestAuth, Response},
};

/// The largest body, in bytes.
const MAX_BODY: usize = 64 << 20;
/// The longest line of a watch, in bytes. A longer line counts as a change too.
const MAX_LINE: usize = 1 << 20;

/// Everything in the folder, and the position from which to watch it.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    pub(super) entries: Vec<Entry>,
    endpoint: Url,
    watch: Watch,
}

/// The position of a watch, by API: the index or revision of the listing.
#[derive(Clone, Copy, Debug)]
enum Watch {
    V2 { after: u64 },
    V3 { after: u64 },
}

#[derive(Debug)]
pub(super) struct Client {
    http: HttpClient,
    endpoints: Vec<Url>,
    prefix: String,
    credentials: Option<Credentials>,
    login: Login,
    /// The member that responded last is tried first.
    in_turn: Endpoints,
}

impl Client {
    /// # Errors
    /// The client cannot be created; the text is the rest of a sentence.
    pub(super) fn new(config: &Config) -> Result<Self, String> {
        let http = HttpClient::new(&ETCD, config.access.ca.as_deref(), config.is_tls())?;
        let (endpoints, prefix) = (config.endpoints.clone(), config.prefix.clone());
        let (credentials, in_turn) = (config.access.credentials.clone(), Endpoints::new(endpoints.len()));
        Ok(Self { http, endpoints, prefix, credentials, login: Login::default(), in_turn })
    }

    /// Returns everything in the folder.
    pub(super) async fn list(&self) -> Result<Listing, Failure> {
        let mut attempts = self.in_turn.attempts();
        while let Some(index) = attempts.next() {
            match self.list_from(&self.endpoints[index]).await {
                Ok(listing) => {
                    self.in_turn.responded(index, None);
                    return Ok(listing);
                }
                Err(failure) => attempts.failed(failure),
            }
        }
        Err(attempts.failure())
    }

    /// Returns the listing of one member.
    ///
    /// The v2 API comes first, because registrator writes to it. The v3 API is used if v2 does not have the folder and v3
    /// does. From 3.4 on, etcd has v2 only if an option enables it.
    async fn list_from(&self, endpoint: &Url) -> Result<Listing, Failure> {
        let listing = |(entries, watch)| Listing { entries, endpoint: endpoint.clone(), watch };
        let v2 = match self.list_v2(endpoint).await? {
            Some(v2) if !v2.0.is_empty() => return Ok(listing(v2)),
            v2 => v2,
        };
        let v3 = self.list_v3(endpoint).await?;
        let found = match (v2, v3) {
            (_, Some(v3)) if !v3.0.is_empty() => Some(v3),
            (Some(v2), _) => Some(v2),
            (None, v3) => v3,
        };
        found.map(listing).ok_or_else(|| Failure::new(endpoint, "has neither /v2/keys nor /v3/kv; is that etcd?"))
    }

    /// Returns the entries by the v2 API; `None` if the member does not have it.
    async fn list_v2(&self, endpoint: &Url) -> Result<Option<(Vec<Entry>, Watch)>, Failure> {
        // The quorum matters: a member that is cut off from the leader has old data.
        let url = self.v2_url(endpoint, &[("recursive", "true"), ("quorum", "true")]);
        let response = self.http.send(&url, self.v2_get(&url).timeout(ETCD.whole_timeout)).await?;
        let index = response.header("X-Etcd-Index").and_then(|index| index.parse::<u64>().ok());
        match response.status() {
            StatusCode::OK => {
                let after = index.ok_or_else(|| Failure::new(&url, "sent no X-Etcd-Index; is that etcd?"))?;
                let body = response.body(MAX_BODY).await?;
                let entries = wire::v2_entries(&body).map_err(|what| Failure::new(&url, what))?;
                Ok(Some((entries, Watch::V2 { after })))
            }
            StatusCode::NOT_FOUND => {
                let body = response.body(MAX_BODY).await?;
                match serde_json::from_slice(&body) {
                    Ok(ErrorBody { code: ErrorBody::NOT_FOUND, index }) => {
                        Ok(Some((Vec::new(), Watch::V2 { after: index })))
                    }
                    _ => Ok(None),
                }
            }
            _ => Err(status_failure(&url, response, self.credentials.is_some()).await),
        }
    }

    /// Returns the entries by the v3 API; `None` if the member does not have it.
    async fn list_v3(&self, endpoint: &Url) -> Result<Option<(Vec<Entry>, Watch)>, Failure> {
        let url = path_url(endpoint, "/v3/kv/range");
        let (key, range_end) = wire::v3_range(&self.prefix);
        let body = json!({ "key": key, "range_end": range_end });
        let response = self.v3_post(endpoint, &url, &body, Some(ETCD.whole_timeout)).await?;
        match response.status() {
            StatusCode::OK => {
                let body = response.body(MAX_BODY).await?;
                let (entries, after) = wire::v3_entries(&body).map_err(|what| Failure::new(&url, what))?;
                Ok(Some((entries, Watch::V3 { after })))
            }
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(status_failure(&url, response, self.credentials.is_some()).await),
        }
    }

    /// Waits until something in the folder changes, or may have changed.
    pub(super) async fn changed(&self, listing: &Listing) -> Result<(), Failure> {
        match listing.watch {
            Watch::V2 { after } => self.changed_v2(&listing.endpoint, after).await,
            Watch::V3 { after } => self.changed_v3(&listing.endpoint, after).await,
        }
    }

    async fn changed_v2(&self, endpoint: &Url, after: u64) -> Result<(), Failure> {
        let index = after.saturating_add(1).to_string();
        let url = self.v2_url(endpoint, &[("wait", "true"), ("recursive", "true"), ("waitIndex", &index)]);
        let mut response = self.http.send(&url, self.v2_get(&url)).await?;
        if response.status() != StatusCode::OK {
            let status = response.status();
            let body = response.body(MAX_BODY).await?;
            return match serde_json::from_slice(&body) {
                Ok(ErrorBody { code: ErrorBody::CLEARED, .. }) => Ok(()),
                _ => Err(Failure::new(&url, format!("cannot be watched: it answered {status}"))),
            };
        }
        // The headers come at once, the body with the event.
        match response.chunk().await? {
            Some(_) => Ok(()),
            None => Err(Failure::new(&url, "ended the watch")),
        }
    }

    async fn changed_v3(&self, endpoint: &Url, after: u64) -> Result<(), Failure> {
        let url = path_url(endpoint, "/v3/watch");
        let (key, range_end) = wire::v3_range(&self.prefix);
        let start_revision = after.saturating_add(1).to_string();
        let body =
            json!({ "create_request": { "key": key, "range_end": range_end, "start_revision": start_revision } });
        let mut response = self.v3_post(endpoint, &url, &body, None).await?;
        if response.status() != StatusCode::OK {
            return Err(status_failure(&url, response, self.credentials.is_some()).await);
        }
        let mut line = Vec::new();
        while let Some(chunk) = response.chunk().await? {
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

    /// Returns a request to the v2 API, which takes the credentials with each request.
    fn v2_get(&self, url: &Url) -> RequestBuilder {
        let request = self.http.get(url);
        match &self.credentials {
            Some(Credentials { user, password }) => request.basic_auth(user, Some(password)),
            None => request,
        }
    }

    /// Sends a request to the v3 API, which takes a token.
    async fn v3_post(
        &self,
        endpoint: &Url,
        url: &Url,
        body: &Value,
        timeout: Option<Duration>,
    ) -> Result<Response, Failure> {
        let request = timeout.into_iter().fold(self.http.post(url).json(body), RequestBuilder::timeout);
        let Some(credentials) = &self.credentials else { return self.http.send(url, request).await };
        let login = MemberLogin { login: &self.login, endpoint, credentials };
        self.http.send_as(url, request, RequestAuth::Token(&login)).await
    }

    fn v2_url(&self, endpoint: &Url, query: &[(&str, &str)]) -> Url {
        let mut url = path_url(endpoint, &format!("/v2/keys{}", self.prefix));
        url.query_pairs_mut().extend_pairs(query);
        url
    }
}
