//! The paths of the status endpoint. Only GET and HEAD: nothing can be changed here.

use axum::{
    Router,
    body::Bytes,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;

use super::cache::{Latest, View};
use crate::surface::{metrics, page};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Returns the router with all paths.
pub(super) fn router(latest: Latest) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/status", get(status))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .route("/v1/services", get(services))
        .route("/v1/status", get(v1_status))
        .fallback(not_found)
        .with_state(latest)
}

/// The path of `meltwater/proxymatic`: load balancers and Marathon's health checks use it.
async fn status(State(latest): State<Latest>) -> Response {
    let state = latest.agent().state;
    let code = if state == "OK" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(code, TEXT, state)
}

/// Whether this process should be left running, regardless of its sources.
async fn healthz(State(latest): State<Latest>) -> Response {
    match latest.stuck_reason() {
        None => answer(StatusCode::OK, TEXT, "OK"),
        Some(why) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, why),
    }
}

async fn metrics(State(latest): State<Latest>) -> Response {
    respond(&latest, View::Metrics, metrics::CONTENT_TYPE).await
}

async fn services(State(latest): State<Latest>) -> Response {
    respond(&latest, View::Services, JSON).await
}

async fn v1_status(State(latest): State<Latest>) -> Response {
    respond(&latest, View::Status, JSON).await
}

/// The query of the page.
#[derive(Deserialize)]
struct PageQuery {
    /// Only services with this text in their name, or with this port.
    #[serde(default)]
    q: String,
}

async fn page(State(latest): State<Latest>, Query(query): Query<PageQuery>) -> Response {
    match latest.reading().await {
        Ok(reading) => {
            let mut response = answer(
                StatusCode::OK,
                "text/html; charset=utf-8",
                page::html(&reading.overview, &query.q).into_string(),
            );
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, page::policy());
            response
        }
        Err(why) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, why),
    }
}

async fn not_found() -> Response {
    answer(
        StatusCode::NOT_FOUND,
        TEXT,
        "no such path; the paths are /, /status, /healthz, /metrics, /v1/services, /v1/status\n",
    )
}

async fn respond(latest: &Latest, view: View, kind: &'static str) -> Response {
    match latest.rendered(view).await {
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
