//! Bytes off sockets: asks the configured Marathons in turn, and takes only an answer that is whole.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use reqwest::{
    RequestBuilder, Response, StatusCode, Url,
    header::{ACCEPT, CONTENT_TYPE, LOCATION},
    redirect::Policy,
};

use super::{
    endpoint::{Credentials, Endpoint},
    failure::Failure,
    read,
    wire::{App, Listing},
};

pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest pause within an answer. A listing of 20,000 tasks can take long to begin.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest time for a whole answer, so that one that trickles does not hold up the next for ever.
pub(super) const WHOLE_TIMEOUT: Duration = Duration::from_secs(300);
/// The largest answer, unpacked. 20,000 tasks are about 21 MB.
const MAX_BODY: usize = 256 << 20;
/// How many times the request for events follows to the leader.
const MAX_HOPS: usize = 2;

/// The events that can change what is served. Names that a server does not know do no harm.
const EVENTS: [&str; 18] = [
    "status_update_event",
    "instance_changed_event",
    "instance_health_changed_event",
    "health_status_changed_event",
    "unhealthy_instance_kill_event",
    "unhealthy_task_kill_event",
    "app_terminated_event",
    "api_post_event",
    "group_change_success",
    "deployment_success",
    "deployment_failed",
    "pod_created_event",
    "pod_updated_event",
    "pod_deleted_event",
    "event_stream_attached",
    "scheduler_disconnected_event",
    "scheduler_registered_event",
    "scheduler_reregistered_event",
];

#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    endpoints: Vec<Endpoint>,
    /// The one that answered last is asked first.
    preferred: AtomicUsize,
}

impl Client {
    pub(super) fn new(endpoints: Vec<Endpoint>) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("proxymatic/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            // Redirects are followed by hand: on the way to another host the credentials must not go along.
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .tcp_keepalive(Duration::from_secs(15))
            .build()?;
        Ok(Self { http, endpoints, preferred: AtomicUsize::new(0) })
    }

    /// Every app with its tasks, and when the request for it was sent.
    pub(super) async fn apps(&self) -> Result<(Instant, Listing), Failure> {
        self.get("/v2/apps", &[("embed", "apps.tasks"), ("embed", "apps.readiness")], read::parse).await
    }

    /// One version of an app's definition.
    pub(super) async fn definition(&self, id: &str, version: &str) -> Result<App, Failure> {
        let path = format!("/v2/apps/{}/versions/{version}", id.trim_start_matches('/'));
        self.get(&path, &[], |body| serde_json::from_slice(body)).await.map(|(_, app)| app)
    }

    /// The stream of events. The URL is of whoever gives it.
    pub(super) async fn events(&self) -> Result<(Url, Response), Failure> {
        let query = EVENTS.map(|event| ("event_type", event));
        let mut failures = Vec::new();
        for (index, endpoint) in self.in_turn() {
            let url = with_query(endpoint.at("/v2/events"), &query);
            match self.follow(url, endpoint.credentials.as_ref()).await {
                Ok(stream) => return Ok(self.prefer(index, stream)),
                Err(failure) => failures.push(failure),
            }
        }
        Err(all(failures))
    }

    /// Asks one Marathon for events, and then the leader it names.
    async fn follow(&self, mut url: Url, mut credentials: Option<&Credentials>) -> Result<(Url, Response), Failure> {
        for hop in 0..=MAX_HOPS {
            // Exactly this, or the answer is 405.
            let request = self.http.get(url.clone()).header(ACCEPT, "text/event-stream");
            let response = authorised(request, credentials).send().await;
            let response = response.map_err(|error| Failure::request(&url, &error))?;
            match response.status() {
                StatusCode::OK if is_event_stream(&response) => return Ok((url, response)),
                StatusCode::OK => return Err(Failure::new(&url, "answered something else than events")),
                status if status.is_redirection() => {
                    let next = target(&url, &response)?;
                    credentials = self.credentials_for(&next);
                    url = next;
                }
                status => {
                    let mut failure = refusal(&url, status, credentials, response).await;
                    if hop > 0 && credentials.is_none() && status == StatusCode::UNAUTHORIZED {
                        failure
                            .what
                            .push_str("; credentials go only to the hosts of --marathon, so add this one there");
                    }
                    return Err(failure);
                }
            }
        }
        Err(Failure::new(&url, format!("leads on to yet another Marathon after {MAX_HOPS} hops")))
    }

    /// The credentials for a host, if it is one of the configured ones.
    fn credentials_for(&self, url: &Url) -> Option<&Credentials> {
        self.endpoints.iter().find(|endpoint| endpoint.is_host_of(url))?.credentials.as_ref()
    }

    async fn get<T: Send + 'static>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        parse: fn(&[u8]) -> Result<T, serde_json::Error>,
    ) -> Result<(Instant, T), Failure> {
        let mut failures = Vec::new();
        for (index, endpoint) in self.in_turn() {
            let at = Instant::now();
            match self.get_from(endpoint, with_query(endpoint.at(path), query), parse).await {
                Ok(it) => return Ok(self.prefer(index, (at, it))),
                Err(failure) => failures.push(failure),
            }
        }
        Err(all(failures))
    }

    async fn get_from<T: Send + 'static>(
        &self,
        endpoint: &Endpoint,
        url: Url,
        parse: fn(&[u8]) -> Result<T, serde_json::Error>,
    ) -> Result<T, Failure> {
        let request = self.http.get(url.clone()).header(ACCEPT, "application/json").timeout(WHOLE_TIMEOUT);
        let response = authorised(request, endpoint.credentials.as_ref()).send().await;
        let response = response.map_err(|error| Failure::request(&url, &error))?;
        if response.status() != StatusCode::OK {
            return Err(refusal(&url, response.status(), endpoint.credentials.as_ref(), response).await);
        }
        let body = whole(&url, response, MAX_BODY).await?;
        // Parsing a large answer takes a tenth of a second and more, during which nothing else would be done.
        let parsed = tokio::task::spawn_blocking(move || parse(&body).map_err(|error| (body, error))).await;
        match parsed {
            Ok(parsed) => parsed.map_err(|(body, error)| Failure::unreadable(&url, &body, &error)),
            Err(error) => Err(Failure::new(&url, format!("gave an answer that could not be read: {error}"))),
        }
    }

    /// The endpoints, beginning with the one that answered last.
    fn in_turn(&self) -> impl Iterator<Item = (usize, &Endpoint)> {
        let first = self.preferred.load(Ordering::Relaxed);
        self.endpoints.iter().enumerate().cycle().skip(first).take(self.endpoints.len())
    }

    fn prefer<T>(&self, index: usize, it: T) -> T {
        self.preferred.store(index, Ordering::Relaxed);
        it
    }
}

fn with_query(mut url: Url, query: &[(&str, &str)]) -> Url {
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url
}

fn authorised(request: RequestBuilder, credentials: Option<&Credentials>) -> RequestBuilder {
    match credentials {
        Some(Credentials { user, password }) => request.basic_auth(user, Some(password)),
        None => request,
    }
}

fn is_event_stream(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
}

/// Where a redirect leads.
fn target(url: &Url, response: &Response) -> Result<Url, Failure> {
    let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
    let next = location.and_then(|location| url.join(location).ok());
    let mut next = next.ok_or_else(|| Failure::new(url, "leads on, but does not say where"))?;
    if next.scheme() != "http" {
        let what = format!("leads on to {}://, which this version does not support", next.scheme());
        return Err(Failure::new(url, what));
    }
    // Whoever answers does not choose the credentials. Of an http URL they can always be taken off.
    let _ = next.set_username("").and_then(|()| next.set_password(None));
    Ok(next)
}

/// The failure for an answer with another status than 200, with what its body says.
async fn refusal(url: &Url, status: StatusCode, credentials: Option<&Credentials>, response: Response) -> Failure {
    let body = whole(url, response, 64 << 10).await.unwrap_or_default();
    Failure::status(url, status, credentials.is_some(), &body)
}

/// The whole body, if it is not larger than that.
async fn whole(url: &Url, mut response: Response, most: usize) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| Failure::request(url, &error))? {
        if body.len() + chunk.len() > most {
            return Err(Failure::new(url, format!("answered more than {} MiB", most >> 20)));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// One failure for all endpoints.
fn all(failures: Vec<Failure>) -> Failure {
    let mut failures = failures.into_iter();
    let Some(mut first) = failures.next() else {
        return Failure { url: String::new(), what: "there is no Marathon to ask".into(), missing: false };
    };
    for other in failures {
        first.what = format!("{}; {other}", first.what);
        first.missing |= other.missing;
    }
    first
}
