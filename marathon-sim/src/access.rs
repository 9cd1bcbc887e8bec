//! Access to a node: checks credentials, and answers as a standby or as a node without a leader.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::state::Shared;

/// Middleware of the node with this address: checks credentials, then acts as a standby or lets the request through.
pub(super) async fn enter(
    State((shared, node)): State<(Arc<Shared>, SocketAddr)>,
    request: Request,
    next: Next,
) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|it| it.to_str().ok());
    let (lets_in, leaderless, leader, redirects) = shared.look(|inner| {
        let leader = inner.cluster.leader().to_owned();
        // A name that belongs to no node means the node that gets the request, so that a single node can have any name.
        let leads = node.to_string() == leader || !inner.gate.nodes.iter().any(|other| other.to_string() == leader);
        let redirects = inner.cluster.dialect().redirects_streams();
        (inner.gate.lets_in(shown), inner.gate.missing_leader(), (!leads).then_some(leader), redirects)
    });
    if !lets_in {
        let ask = [(header::WWW_AUTHENTICATE, "basic realm=\"Mesosphere\"")];
        return (StatusCode::UNAUTHORIZED, ask, "<html><h2>HTTP ERROR: 401</h2></html>").into_response();
    }
    if let Some(code) = leaderless {
        return (code, "Could not determine the current leader").into_response();
    }
    let Some(leader) = leader else { return next.run(request).await };
    let path = request.uri().path_and_query().map_or("/", |it| it.as_str());
    if redirects && path.starts_with("/v2/events") {
        return (StatusCode::FOUND, [(header::LOCATION, format!("http://{leader}{path}"))]).into_response();
    }
    let mut response = next.run(request).await;
    if let Ok(via) = HeaderValue::from_str(&format!("1.1 {node}")) {
        response.headers_mut().insert("x-marathon-via", via);
    }
    response
}

/// `POST /acs/api/v1/auth/login`
pub(super) async fn login(State(shared): State<Arc<Shared>>, Json(asked): Json<Value>) -> Response {
    match shared.change(|inner| inner.gate.log_in(&asked)) {
        Some(token) => Json(json!({"token": token})).into_response(),
        None => (StatusCode::UNAUTHORIZED, Json(json!({"title": "Unauthorized"}))).into_response(),
    }
}
