//! The client of Marathon's API: sends each request to the configured endpoints in turn, and accepts only whole responses.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use reqwest::{
    StatusCode, Url,
    header::{ACCEPT, CONTENT_TYPE, DATE, LOCATION},
};
use serde::Deserialize;

use super::{
    api::{App, Lenient, Listing, Pod, PodStatus},
    auth::Access,
    convert,
    dcos::Session,
    endpoint::Endpoint,
    first_versions,
    response_failure::{MARATHON, status_failure, unreadable},
    server_clock::ServerClock,
    timestamp::http_date_millis,
};
use crate::source::{
    Clock,
    credentials::Credentials,
    failure::Failure,
    http::{self, Endpoints, HttpClient, Response},
};

/// The largest body in bytes, unpacked. 20,000 tasks are about 21 MB.
const MAX_BODY: usize = 256 << 20;
/// The largest list of versions, in bytes. Marathon keeps 50 by default, of 29 bytes each.
const MAX_VERSIONS_BODY: usize = 4 << 20;
/// The largest body of an error that is read, in bytes.
const MAX_ERROR_BODY: usize = 64 << 10;
/// How many redirects the request for events follows, to the leader.
const MAX_HOPS: usize = 2;

/// The events that can change what is served. A server ignores names that it does not know.
const EVENTS: [&str; 20] = [
    "status_update_event",
    "instance_changed_event",
    "instance_health_changed_event",
    "health_status_changed_event",
    "unhealthy_instance_kill_event",
    "unknown_instance_terminated_event",
    "unhealthy_task_kill_event",
    "app_terminated_event",
    "api_post_event",
    "group_change_success",
    "deployment_info",
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

/// The header in which Marathon names the leader.
const LEADER: &str = "x-marathon-leader";

/// The authorization of a request to Marathon.
type RequestAuth<'a> = http::RequestAuth<'a, Session>;

#[derive(Debug)]
pub(super) struct Client {
    http: HttpClient,
    server_clock: Mutex<Option<ServerClock>>,
    endpoints: Vec<Endpoint>,
    credentials: Option<Credentials>,
    session: Option<Session>,
    in_turn: Endpoints,
    clock: Clock,
}

impl Client {
    /// # Errors
    /// The client cannot be created; the text is the rest of a sentence.
    pub(super) fn new(endpoints: Vec<Endpoint>, access: &Access, clock: Clock) -> Result<Self, String> {
        let account = access.account.clone();
        let is_tls = endpoints.iter().any(Endpoint::is_tls) || account.as_ref().is_some_and(|it| it.is_tls());
        let http = HttpClient::new(&MARATHON, access.ca.as_deref(), is_tls)?;
        let (in_turn, session) = (Endpoints::new(endpoints.len()), account.map(Session::new));
        let server_clock = Mutex::default();
        Ok(Self { http, server_clock, endpoints, credentials: access.credentials.clone(), session, in_turn, clock })
    }

    /// Returns the clock of the source.
    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Returns the last leader that a response named.
    pub(super) fn leader(&self) -> Option<String> {
        self.in_turn.leader()
    }

    /// Returns Marathon's clock by the header `Date` of its responses; `None` if no response had one.
    pub(super) fn server_clock(&self) -> Option<ServerClock> {
        *self.server_clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_date(&self, response: &Response) {
        let Some(date) = response.header(DATE.as_str()).and_then(http_date_millis) else { return };
        let mut clock = self.server_clock.lock().unwrap_or_else(PoisonError::into_inner);
        *clock = Some(ServerClock::read(*clock, date, self.clock.now()));
    }

    /// Returns every app with its tasks, and when the request was sent.
    pub(super) async fn apps(&self) -> Result<(Instant, Listing), Failure> {
        self.get("/v2/apps", &[("embed", "apps.tasks"), ("embed", "apps.readiness")], convert::parse).await
    }

    /// Returns every pod with its instances.
    pub(super) async fn pods(&self) -> Result<Vec<Lenient<PodStatus>>, Failure> {
        self.get("/v2/pods/::status", &[], convert::parse_pods).await.map(|(_, pods)| pods)
    }

    /// Returns one pod with its instances.
    pub(super) async fn pod(&self, id: &str) -> Result<PodStatus, Failure> {
        let path = format!("/v2/pods/{}::status", id.trim_start_matches('/'));
        let (_, pod) = self.get(&path, &[], |body| serde_json::from_slice::<PodStatus>(body)).await?;
        if pod.id == id {
            return Ok(pod);
        }
        let what = format!("answered with the pod {:?} instead of {id:?}; is there a cache on the way?", pod.id);
        Err(Failure::without_url(&path, what))
    }

    /// Returns one version of a pod's definition.
    pub(super) async fn pod_definition(&self, id: &str, version: &str) -> Result<Pod, Failure> {
        let path = format!("/v2/pods/{}::versions/{version}", id.trim_start_matches('/'));
        self.get(&path, &[], |body| serde_json::from_slice(body)).await.map(|(_, pod)| pod)
    }

    /// Returns one app with its tasks.
    pub(super) async fn app(&self, id: &str) -> Result<App, Failure> {
        #[derive(Deserialize)]
        struct One {
            app: App,
        }
        let path = format!("/v2/apps/{}", id.trim_start_matches('/'));
        let query = [("embed", "app.tasks"), ("embed", "app.readiness")];
        let (_, One { app }) = self.get(&path, &query, |body| serde_json::from_slice(body)).await?;
        if app.id == id {
            return Ok(app);
        }
        let what = format!("answered with the app {:?} instead of {id:?}; is there a cache on the way?", app.id);
        Err(Failure::without_url(&path, what))
    }

    /// Returns one version of an app's definition.
    pub(super) async fn definition(&self, id: &str, version: &str) -> Result<App, Failure> {
        let path = format!("/v2/apps/{}/versions/{version}", id.trim_start_matches('/'));
        self.get(&path, &[], |body| serde_json::from_slice(body)).await.map(|(_, app)| app)
    }

    /// Returns the time of the first version of an app or pod that is listed, in milliseconds since 1970.
    pub(super) async fn first_version(&self, id: &str, is_pod: bool) -> Result<i64, Failure> {
        let (bare, parse): (_, fn(&[u8]) -> _) =
            (id.trim_start_matches('/'), if is_pod { first_versions::parse_of_pod } else { first_versions::parse });
        let path = if is_pod { format!("/v2/pods/{bare}::versions") } else { format!("/v2/apps/{bare}/versions") };
        let (_, first) = self.get_at_most(MAX_VERSIONS_BODY, &path, &[], parse).await?;
        first.ok_or_else(|| Failure::without_url(&path, "lists no version"))
    }

    /// Returns the stream of events, and the URL of the Marathon that sends it.
    pub(super) async fn events(&self) -> Result<(Url, Response), Failure> {
        let mut query = EVENTS.map(|event| ("event_type", event)).to_vec();
        // Without it, Marathon 1.6 and 1.7 send all apps with each event of a deployment.
        query.push(("plan-format", "light"));
        let mut attempts = self.in_turn.attempts();
        while let Some(index) = attempts.next() {
            let url = with_query(self.endpoints[index].url_of("/v2/events"), &query);
            match self.open_stream(url, self.auth(index)).await {
                Ok((url, stream)) => {
                    let sender = self.endpoints.iter().position(|endpoint| endpoint.has_host_and_port_of(&url));
                    self.in_turn.responded(sender.unwrap_or(index), self.named_leader(&stream));
                    return Ok((url, stream));
                }
                Err(failure) => attempts.failed(failure),
            }
        }
        Err(attempts.failure())
    }

    /// Requests events from one Marathon, and then from the leader that it redirects to.
    async fn open_stream(&self, mut url: Url, mut auth: RequestAuth<'_>) -> Result<(Url, Response), Failure> {
        for hop in 0..=MAX_HOPS {
            // Marathon answers 405 to any other value.
            let request = self.http.get(&url).header(ACCEPT, "text/event-stream");
            let response = self.http.send_as(&url, request, auth).await?;
            match response.status() {
                StatusCode::OK if is_event_stream(&response) => return Ok((url, response)),
                StatusCode::OK => return Err(Failure::new(&url, "answered something else than events")),
                status if status.is_redirection() => {
                    let next = redirect_target(&url, &response)?;
                    auth = self.auth_after_redirect(&url, &next);
                    url = next;
                }
                status => {
                    let mut failure = refusal(&url, auth, response).await;
                    if hop > 0 && matches!(auth, RequestAuth::None) && status == StatusCode::UNAUTHORIZED {
                        failure.what.push_str(
                            "; credentials go only to the hosts of --marathon, and never from https to http, so add this one there",
                        );
                    }
                    return Err(failure);
                }
            }
        }
        Err(Failure::new(&url, format!("redirects to yet another Marathon after {MAX_HOPS} redirects")))
    }

    /// Returns the authorization of a request to a configured Marathon.
    fn auth(&self, index: usize) -> RequestAuth<'_> {
        let own = self.endpoints[index].credentials.as_ref();
        match (own.or(self.credentials.as_ref()), &self.session) {
            (Some(credentials), _) => RequestAuth::Basic(credentials),
            (None, Some(session)) => RequestAuth::Token(session),
            (None, None) => RequestAuth::None,
        }
    }

    /// Returns the authorization of a request after a redirect: none if the new host is not configured, or if the redirect
    /// leaves TLS, because anything on the way could then read the credentials.
    fn auth_after_redirect(&self, from: &Url, to: &Url) -> RequestAuth<'_> {
        let known = self.endpoints.iter().position(|endpoint| endpoint.has_host_and_port_of(to));
        let leaves_tls =
            |index: usize| (from.scheme() == "https" || self.endpoints[index].is_tls()) && to.scheme() != "https";
        known.filter(|index| !leaves_tls(*index)).map_or(RequestAuth::None, |index| self.auth(index))
    }

    /// Requests a path from the endpoints in turn. Returns the parsed response, and when the request was sent.
    async fn get<T: Send + 'static>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        parse: fn(&[u8]) -> Result<T, serde_json::Error>,
    ) -> Result<(Instant, T), Failure> {
        self.get_at_most(MAX_BODY, path, query, parse).await
    }

    /// Requests a path, like [`Client::get`], with a bound for the body in bytes.
    async fn get_at_most<T: Send + 'static>(
        &self,
        most: usize,
        path: &str,
        query: &[(&str, &str)],
        parse: fn(&[u8]) -> Result<T, serde_json::Error>,
    ) -> Result<(Instant, T), Failure> {
        let mut attempts = self.in_turn.attempts();
        while let Some(index) = attempts.next() {
            let (at, url) = (self.clock.now(), with_query(self.endpoints[index].url_of(path), query));
            match self.get_from(index, url, most, parse).await {
                Ok(it) => return Ok((at, it)),
                Err(failure) => attempts.failed(failure),
            }
        }
        Err(attempts.failure())
    }

    async fn get_from<T: Send + 'static>(
        &self,
        index: usize,
        url: Url,
        most: usize,
        parse: fn(&[u8]) -> Result<T, serde_json::Error>,
    ) -> Result<T, Failure> {
        let request = self.http.get(&url).header(ACCEPT, "application/json").timeout(MARATHON.whole_timeout);
        let auth = self.auth(index);
        let response = self.http.send_as(&url, request, auth).await?;
        if response.status() != StatusCode::OK {
            return Err(refusal(&url, auth, response).await);
        }
        self.note_date(&response);
        let leader = self.named_leader(&response);
        let body = response.body(most).await?;
        // A large body takes a tenth of a second and more to parse. Events are handled meanwhile.
        let parsed = tokio::task::spawn_blocking(move || parse(&body).map_err(|error| (body, error))).await;
        let parsed = match parsed {
            Ok(parsed) => parsed.map_err(|(body, error)| unreadable(&url, &body, &error)),
            Err(error) => Err(Failure::new(&url, format!("sent a response that cannot be read: {error}"))),
        }?;
        self.in_turn.responded(index, leader);
        Ok(parsed)
    }

    /// Returns the leader that a response names, and its endpoint if it is configured.
    fn named_leader(&self, response: &Response) -> Option<(String, Option<usize>)> {
        let name = response.header(LEADER)?;
        let Ok(url) = Url::parse(name) else { return Some((name.to_owned(), None)) };
        let by_port = self.endpoints.iter().position(|endpoint| endpoint.has_host_and_port_of(&url));
        // The name has the port of plain HTTP even if Marathon is configured with TLS.
        let mut by_host = (0..self.endpoints.len()).filter(|index| self.endpoints[*index].has_host_of(&url));
        let only = by_host.next().filter(|_| by_host.next().is_none());
        Some((name.to_owned(), by_port.or(only)))
    }
}

fn with_query(mut url: Url, query: &[(&str, &str)]) -> Url {
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url
}

fn is_event_stream(response: &Response) -> bool {
    let kind = response.header(CONTENT_TYPE.as_str());
    kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
}

/// Returns the target of a redirect.
fn redirect_target(url: &Url, response: &Response) -> Result<Url, Failure> {
    let next = response.header(LOCATION.as_str()).and_then(|location| url.join(location).ok());
    let mut next = next.ok_or_else(|| Failure::new(url, "sent a redirect without a target"))?;
    if !matches!(next.scheme(), "http" | "https") {
        return Err(Failure::new(url, format!("redirects to {}://, which no Marathon speaks", next.scheme())));
    }
    // The server does not choose the credentials. A URL with http or https can always lose them.
    let _ = next.set_username("").and_then(|()| next.set_password(None));
    Ok(next)
}

/// Returns the failure for a response with a status other than 200, with the message of its body.
async fn refusal(url: &Url, auth: RequestAuth<'_>, response: Response) -> Failure {
    let status = response.status();
    let body = response.body(MAX_ERROR_BODY).await.unwrap_or_default();
    status_failure(url, status, !matches!(auth, RequestAuth::None), &body)
}
