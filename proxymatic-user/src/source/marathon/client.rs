//! Bytes off sockets: asks the configured Marathons in turn, and takes only an answer that is whole.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use reqwest::{
    RequestBuilder, Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION},
    redirect::Policy,
};

use serde::Deserialize;

use super::{
    api::{App, Lenient, Listing, Pod, PodStatus},
    auth::Access,
    convert,
    dcos::Session,
    endpoint::Endpoint,
    endpoint_order::EndpointOrder,
    failure::{self, Failure},
};
use crate::source::{credentials::Credentials, tls};

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

/// Where a Marathon says who leads.
const LEADER: &str = "x-marathon-leader";

#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    endpoints: Vec<Endpoint>,
    credentials: Option<Credentials>,
    session: Option<Session>,
    turn: Mutex<EndpointOrder>,
}

/// What a request shows to get in.
#[derive(Clone, Copy, Debug)]
enum RequestAuth<'a> {
    Nothing,
    Basic(&'a Credentials),
    Token(&'a Session),
}

impl Client {
    /// `Err` is the rest of a sentence.
    pub(super) fn new(endpoints: Vec<Endpoint>, access: &Access) -> Result<Self, String> {
        let account = access.account.clone();
        let is_tls = endpoints.iter().any(Endpoint::is_tls) || account.as_ref().is_some_and(|it| it.is_tls());
        let http = reqwest::Client::builder()
            .user_agent(concat!("proxymatic/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            // Redirects are followed by hand: on the way to another host the credentials must not go along.
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .tcp_keepalive(Duration::from_secs(15));
        let http = tls::set_up(http, access.ca.as_deref(), is_tls).build();
        let http = http.map_err(|error| format!("cannot be asked: {error}: {}", failure::root(&error)))?;
        let (turn, session) = (Mutex::new(EndpointOrder::of(endpoints.len())), account.map(Session::new));
        Ok(Self { http, endpoints, credentials: access.credentials.clone(), session, turn })
    }

    /// The leader, as it was last named.
    pub(super) fn leader(&self) -> Option<String> {
        self.turn().leader().map(str::to_owned)
    }

    /// Every app with its tasks, and when the request for it was sent.
    pub(super) async fn apps(&self) -> Result<(Instant, Listing), Failure> {
        self.get("/v2/apps", &[("embed", "apps.tasks"), ("embed", "apps.readiness")], convert::parse).await
    }

    /// Every pod with its instances.
    pub(super) async fn pods(&self) -> Result<Vec<Lenient<PodStatus>>, Failure> {
        self.get("/v2/pods/::status", &[], convert::parse_pods).await.map(|(_, pods)| pods)
    }

    /// One version of a pod's definition.
    pub(super) async fn pod_definition(&self, id: &str, version: &str) -> Result<Pod, Failure> {
        let path = format!("/v2/pods/{}::versions/{version}", id.trim_start_matches('/'));
        self.get(&path, &[], |body| serde_json::from_slice(body)).await.map(|(_, pod)| pod)
    }

    /// One app with its tasks.
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
        let what = format!("answered with the app {:?} when asked for {id:?}; is there a cache between?", app.id);
        Err(Failure { url: path, what, not_found: false })
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
        for index in self.order() {
            let url = with_query(self.endpoints[index].at("/v2/events"), &query);
            match self.open_stream(url, self.pass(index)).await {
                Ok((url, stream)) => {
                    let giver = self.endpoints.iter().position(|endpoint| endpoint.is_host_of(&url));
                    self.answered(giver.unwrap_or(index), &stream);
                    return Ok((url, stream));
                }
                Err(failure) => failures.push(self.failed(index, failure)),
            }
        }
        Err(all(failures))
    }

    /// Asks one Marathon for events, and then the leader it names.
    async fn open_stream(&self, mut url: Url, mut pass: RequestAuth<'_>) -> Result<(Url, Response), Failure> {
        for hop in 0..=MAX_HOPS {
            // Exactly this, or the answer is 405.
            let request = self.http.get(url.clone()).header(ACCEPT, "text/event-stream");
            let response = self.send(request, &url, pass).await?;
            match response.status() {
                StatusCode::OK if is_event_stream(&response) => return Ok((url, response)),
                StatusCode::OK => return Err(Failure::new(&url, "answered something else than events")),
                status if status.is_redirection() => {
                    let next = target(&url, &response)?;
                    pass = self.pass_for(&url, &next);
                    url = next;
                }
                status => {
                    let mut failure = refusal(&url, status, pass, response).await;
                    if hop > 0 && matches!(pass, RequestAuth::Nothing) && status == StatusCode::UNAUTHORIZED {
                        failure.what.push_str(
                            "; credentials go only to the hosts of --marathon, and never from https to http, so add this one there",
                        );
                    }
                    return Err(failure);
                }
            }
        }
        Err(Failure::new(&url, format!("leads on to yet another Marathon after {MAX_HOPS} hops")))
    }

    /// What a request to one of the configured Marathons shows.
    fn pass(&self, index: usize) -> RequestAuth<'_> {
        let own = self.endpoints[index].credentials.as_ref();
        match (own.or(self.credentials.as_ref()), &self.session) {
            (Some(credentials), _) => RequestAuth::Basic(credentials),
            (None, Some(session)) => RequestAuth::Token(session),
            (None, None) => RequestAuth::Nothing,
        }
    }

    /// What a request shows that was led from one URL to another: nothing where that is not a configured host, nor where
    /// everyone on the way could read it then.
    fn pass_for(&self, from: &Url, to: &Url) -> RequestAuth<'_> {
        let known = self.endpoints.iter().position(|endpoint| endpoint.is_host_of(to));
        let in_the_clear =
            |index: usize| (from.scheme() == "https" || self.endpoints[index].is_tls()) && to.scheme() != "https";
        known.filter(|index| !in_the_clear(*index)).map_or(RequestAuth::Nothing, |index| self.pass(index))
    }

    /// Sends a request. A token that is refused is renewed once.
    async fn send(&self, request: RequestBuilder, url: &Url, pass: RequestAuth<'_>) -> Result<Response, Failure> {
        let send = async |request: RequestBuilder| request.send().await.map_err(|error| Failure::request(url, &error));
        let session = match pass {
            RequestAuth::Nothing => return send(request).await,
            RequestAuth::Basic(Credentials { user, password }) => {
                return send(request.basic_auth(user, Some(password))).await;
            }
            RequestAuth::Token(session) => session,
        };
        let mut again = request.try_clone();
        let mut next = Some(request);
        let mut answer = Err(Failure::new(url, "cannot be asked"));
        while let Some(request) = next {
            let token = session.token(&self.http).await?;
            let response = send(request.header(AUTHORIZATION, format!("token={}", token.text))).await?;
            let refused = response.status() == StatusCode::UNAUTHORIZED;
            session.used(&token, !refused).await;
            answer = Ok(response);
            next = if refused { again.take() } else { None };
        }
        answer
    }

    async fn get<T: Send + 'static>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        parse: fn(&[u8]) -> Result<T, serde_json::Error>,
    ) -> Result<(Instant, T), Failure> {
        let mut failures = Vec::new();
        for index in self.order() {
            let (at, url) = (Instant::now(), with_query(self.endpoints[index].at(path), query));
            match self.get_from(index, url, parse).await {
                Ok(it) => return Ok((at, it)),
                Err(failure) => failures.push(self.failed(index, failure)),
            }
        }
        Err(all(failures))
    }

    async fn get_from<T: Send + 'static>(
        &self,
        index: usize,
        url: Url,
        parse: fn(&[u8]) -> Result<T, serde_json::Error>,
    ) -> Result<T, Failure> {
        let request = self.http.get(url.clone()).header(ACCEPT, "application/json").timeout(WHOLE_TIMEOUT);
        let pass = self.pass(index);
        let response = self.send(request, &url, pass).await?;
        if response.status() != StatusCode::OK {
            return Err(refusal(&url, response.status(), pass, response).await);
        }
        let leader = self.named(&response);
        let body = read_body(&url, response, MAX_BODY).await?;
        // Parsing a large answer takes a tenth of a second and more, during which nothing else would be done.
        let parsed = tokio::task::spawn_blocking(move || parse(&body).map_err(|error| (body, error))).await;
        let parsed = match parsed {
            Ok(parsed) => parsed.map_err(|(body, error)| Failure::unreadable(&url, &body, &error)),
            Err(error) => Err(Failure::new(&url, format!("gave an answer that could not be read: {error}"))),
        }?;
        self.turn().answered(index, leader, Instant::now());
        Ok(parsed)
    }

    /// The endpoints, the one that is to be asked first before the others.
    fn order(&self) -> Vec<usize> {
        self.turn().order()
    }

    fn answered(&self, index: usize, response: &Response) {
        let leader = self.named(response);
        self.turn().answered(index, leader, Instant::now());
    }

    fn failed(&self, index: usize, failure: Failure) -> Failure {
        if !failure.not_found {
            self.turn().failed(index, Instant::now());
        }
        failure
    }

    /// The leader that an answer names, and which of the endpoints that is.
    fn named(&self, response: &Response) -> Option<(String, Option<usize>)> {
        let name = response.headers().get(LEADER)?.to_str().ok()?;
        let Ok(url) = Url::parse(name) else { return Some((name.to_owned(), None)) };
        let by_port = self.endpoints.iter().position(|endpoint| endpoint.is_host_of(&url));
        // Its name has the port of plain HTTP also where TLS is asked for.
        let mut by_name = (0..self.endpoints.len()).filter(|index| self.endpoints[*index].is_name_of(&url));
        let only = by_name.next().filter(|_| by_name.next().is_none());
        Some((name.to_owned(), by_port.or(only)))
    }

    fn turn(&self) -> MutexGuard<'_, EndpointOrder> {
        // Nothing panics while it is held; if it did, the order would still be an order.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn with_query(mut url: Url, query: &[(&str, &str)]) -> Url {
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url
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
    if !matches!(next.scheme(), "http" | "https") {
        return Err(Failure::new(url, format!("leads on to {}://, which no Marathon speaks", next.scheme())));
    }
    // Whoever answers does not choose the credentials. Of such a URL they can always be taken off.
    let _ = next.set_username("").and_then(|()| next.set_password(None));
    Ok(next)
}

/// The failure for an answer with another status than 200, with what its body says.
async fn refusal(url: &Url, status: StatusCode, pass: RequestAuth<'_>, response: Response) -> Failure {
    let body = read_body(url, response, 64 << 10).await.unwrap_or_default();
    Failure::status(url, status, !matches!(pass, RequestAuth::Nothing), &body)
}

/// The whole body, if it is not larger than that.
async fn read_body(url: &Url, mut response: Response, most: usize) -> Result<Vec<u8>, Failure> {
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
        return Failure { url: String::new(), what: "there is no Marathon to ask".into(), not_found: false };
    };
    for other in failures {
        first.what = format!("{}; {other}", first.what);
        first.not_found |= other.not_found;
    }
    first
}
