//! The routes of Marathon's API, and those of the simulator's control.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state, map_response_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;

use super::response::{answer, message};
use super::state::{Logged, Shared};
use super::view::{self, Embed, Status};
use super::{abdication, access, command, deploy, fault_injection, stream};

type Pairs = Vec<(String, String)>;

/// The routes of the node with this address.
pub(super) fn router(shared: Arc<Shared>, node: SocketAddr) -> Router {
    let control = Router::new()
        .route("/sim/log", get(sim_log).delete(sim_log_clear))
        .route("/sim/written", get(sim_written))
        .route("/sim/state", get(sim_state).post(|shared, body| sim(shared, Path("state".into()), body)))
        .route("/sim/{*command}", post(sim))
        .route("/acs/api/v1/auth/login", post(access::login))
        .layer(DefaultBodyLimit::disable());
    Router::new()
        .without_v07_checks() // "::status" is Marathon's own
        .route("/ping", get(ping))
        .route("/v2/info", get(async |State(shared): Shares| shared.look(|inner| answer(view::info(&inner.cluster)))))
        .route(
            "/v2/leader",
            get(async |State(shared): Shares| shared.look(|inner| answer(view::leader(&inner.cluster))))
                .delete(abdication::delete_leader),
        )
        .route("/v2/apps", get(apps).post(deploy::create))
        .route("/v2/apps/", get(apps))
        .route("/v2/apps/{*path}", get(below_apps).put(deploy::put).delete(deploy::delete))
        .route("/v2/tasks", get(tasks))
        .route("/v2/deployments", get(async || answer(json!([]))))
        .route("/v2/pods", get(|shared| pods(shared, Path(String::new()))))
        .route("/v2/pods/{*path}", get(pods))
        .fallback(unknown)
        .layer(CompressionLayer::new().quality(CompressionLevel::Fastest))
        .route("/v2/events", get(stream::events))
        .layer(map_response_with_state(Arc::clone(&shared), leader_headers))
        .layer(from_fn_with_state(Arc::clone(&shared), fault_injection::inject))
        .layer(from_fn_with_state((Arc::clone(&shared), node), access::enter))
        .layer(from_fn_with_state((Arc::clone(&shared), node), log))
        .merge(control)
        .with_state(shared)
}

type Shares = State<Arc<Shared>>;

async fn ping(headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    if ["*/*", "text/*", "text/plain", "text/html"].iter().any(|kind| accept.contains(kind)) {
        "pong".into_response()
    } else if accept.contains("application/json") {
        answer("pong")
    } else {
        StatusCode::NO_CONTENT.into_response()
    }
}

async fn apps(State(shared): Shares, Query(query): Query<Pairs>) -> Response {
    if query.iter().any(|(key, _)| key == "label") {
        return message(StatusCode::BAD_REQUEST, "label selectors are not simulated; id=, cmd= and embed= are");
    }
    let has = |key: &str, text: &str| query.iter().filter(|(k, _)| k == key).all(|(_, part)| text.contains(part));
    shared.look(|inner| {
        answer(view::apps(&inner.cluster, embed(&query), &|id, app| {
            has("id", id) && has("cmd", app.shown().json.get("cmd").and_then(Value::as_str).unwrap_or(""))
        }))
    })
}

/// `/v2/apps/{id}`, `…/tasks`, `…/versions`, `…/versions/{v}` and `/v2/apps/{group}/*`; ids contain slashes.
async fn below_apps(State(shared): Shares, Path(path): Path<String>, Query(query): Query<Pairs>) -> Response {
    let path = format!("/{}", path.trim_matches('/'));
    shared.look(|inner| {
        let cluster = &inner.cluster;
        if let Some(group) = path.strip_suffix('*').filter(|group| group.ends_with('/')) {
            return answer(view::group(cluster, "*", embed(&query), &|id, _| id.starts_with(group)));
        }
        let no_app = |id: &str| message(StatusCode::NOT_FOUND, format!("App '{id}' does not exist"));
        if let Some(id) = path.strip_suffix("/tasks") {
            return cluster
                .shown(id)
                .map_or_else(|| no_app(id), |app| answer(view::app_tasks(cluster.dialect(), id, app)));
        }
        if let Some(id) = path.strip_suffix("/versions") {
            return cluster.shown(id).map_or_else(|| no_app(id), |app| answer(view::versions(app)));
        }
        if let Some((id, name)) = path.rsplit_once("/versions/") {
            let found = cluster.app(id).and_then(|app| view::version(cluster.dialect(), app, name));
            let missing = || message(StatusCode::NOT_FOUND, format!("App '{id}' does not exist in version {name}"));
            return found.map_or_else(missing, answer);
        }
        cluster.shown(&path).map_or_else(|| no_app(&path), |app| answer(view::app(cluster.dialect(), &path, app)))
    })
}

/// `/v2/pods`, `/v2/pods/::status`, `/v2/pods/{id}`, `…::status`, `…::versions` and `…::versions/{v}`.
async fn pods(State(shared): Shares, Path(path): Path<String>) -> Response {
    shared.look(|inner| {
        if !inner.cluster.dialect().has_pods() {
            return StatusCode::NOT_FOUND.into_response();
        }
        let missing = || message(StatusCode::NOT_FOUND, format!("Pod '/{path}' does not exist"));
        inner.cluster.pods.answer(&path).map_or_else(missing, answer)
    })
}

async fn tasks(State(shared): Shares, Query(query): Query<Pairs>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    if !accept.contains("application/json") && !accept.contains("*/*") && !accept.contains("application/*") {
        return StatusCode::NOT_ACCEPTABLE.into_response(); // text/plain went away in 1.10
    }
    let asked =
        |word: &str| query.iter().any(|(key, value)| matches!(&key[..], "status" | "status[]") && value == word);
    let status = Status { running: asked("running"), staging: asked("staging") };
    shared.look(|inner| answer(view::tasks(&inner.cluster, status)))
}

async fn unknown(State(shared): Shares) -> Response {
    message(shared.look(|inner| inner.cluster.dialect().unknown_path()), "URI not found")
}

async fn sim(State(shared): Shares, Path(command): Path<String>, body: Bytes) -> Response {
    let body = if body.is_empty() { Ok(json!({})) } else { serde_json::from_slice(&body) };
    let done = match body {
        Ok(body) => shared.change(|inner| command::run(inner, &command, body)).map_err(|refused| refused.to_string()),
        Err(wrong) => Err(format!("/sim/{command}: the body is not JSON ({wrong}), and a JSON object is accepted")),
    };
    done.map_or_else(|sentence| message(StatusCode::BAD_REQUEST, sentence), answer)
}

async fn sim_state(State(shared): Shares) -> Response {
    shared.look(|inner| answer(command::summary(inner)))
}

async fn sim_log(State(shared): Shares) -> Response {
    shared.look(|inner| answer(&inner.log))
}

async fn sim_written(State(shared): Shares) -> Response {
    shared.look(|inner| answer(json!({"ns": inner.hub.written()})))
}

async fn sim_log_clear(State(shared): Shares) -> Response {
    shared.change(|inner| inner.log.clear());
    answer(json!({}))
}

async fn leader_headers(State(shared): Shares, mut response: Response) -> Response {
    let headers = response.headers_mut();
    let leader = shared.look(|inner| format!("http://{}", inner.cluster.leader()));
    if let Ok(leader) = HeaderValue::from_str(&leader) {
        headers.insert("x-marathon-leader", leader);
    }
    for (name, value) in [
        ("cache-control", "no-cache, no-store, must-revalidate"),
        ("pragma", "no-cache"),
        ("expires", "0"),
        ("x-frame-options", "DENY"),
        ("x-xss-protection", "1; mode=block"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn log(State((shared, node)): State<(Arc<Shared>, SocketAddr)>, request: Request, next: Next) -> Response {
    shared.log(logged(&request, node));
    next.run(request).await
}

fn logged(request: &Request, node: SocketAddr) -> Logged {
    let shown = |name| request.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into());
    Logged {
        method: request.method().to_string(),
        path: request.uri().path().into(),
        query: request.uri().query().map(Into::into),
        accept: shown(header::ACCEPT),
        authorization: shown(header::AUTHORIZATION),
        node: node.to_string(),
    }
}

fn embed(query: &Pairs) -> Embed {
    query.iter().filter(|(key, _)| key == "embed").fold(Embed::default(), |embed, (_, value)| embed.with(value))
}
