//! What is answered to which path. Only GET and HEAD: nothing can be changed from here.

use axum::{
    Router,
    body::Bytes,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;

use super::cache::{As, Latest};
use crate::surface::{metrics, page};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// All paths there are.
pub(super) fn router(latest: Latest) -> Router {
    Router::new()
        .route("/", get(front))
        .route("/status", get(status))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .route("/v1/services", get(services))
        .route("/v1/status", get(v1_status))
        .fallback(nowhere)
        .with_state(latest)
}

/// As the container that this one replaces has it: load balancers and Marathon's health checks look here.
async fn status(State(latest): State<Latest>) -> Response {
    let state = latest.agent().state;
    let code = if state == "OK" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(code, TEXT, state)
}

/// Whether this process should be left running, whatever its sources do.
async fn healthz(State(latest): State<Latest>) -> Response {
    match latest.stuck() {
        None => answer(StatusCode::OK, TEXT, "OK"),
        Some(why) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, why),
    }
}

async fn metrics(State(latest): State<Latest>) -> Response {
    written(&latest, As::Metrics, metrics::CONTENT_TYPE).await
}

async fn services(State(latest): State<Latest>) -> Response {
    written(&latest, As::Services, JSON).await
}

async fn v1_status(State(latest): State<Latest>) -> Response {
    written(&latest, As::Status, JSON).await
}

/// What the page is asked for.
#[derive(Deserialize)]
struct Wanted {
    /// Only services with this in their name, or of this port.
    #[serde(default)]
    q: String,
}

async fn front(State(latest): State<Latest>, Query(wanted): Query<Wanted>) -> Response {
    match latest.seen().await {
        Ok(shown) => {
            let mut response =
                answer(StatusCode::OK, "text/html; charset=utf-8", page::html(&shown.seen, &wanted.q).into_string());
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, page::policy());
            response
        }
        Err(why) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, why),
    }
}

async fn nowhere() -> Response {
    answer(
        StatusCode::NOT_FOUND,
        TEXT,
        "not here; there are /, /status, /healthz, /metrics, /v1/services, /v1/status\n",
    )
}

async fn written(latest: &Latest, how: As, kind: &'static str) -> Response {
    match latest.written(how).await {
        Ok(bytes) => answer(StatusCode::OK, kind, bytes),
        Err(why) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, why),
    }
}

fn answer(code: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (code, headers, body.into()).into_response()
}
