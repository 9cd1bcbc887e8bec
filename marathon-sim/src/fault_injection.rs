//! Applies the current fault to responses.

use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};

use super::fault::FaultKind;
use super::state::Shared;

/// Middleware: applies the current fault, or returns the correct response.
pub(super) async fn inject(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let is_stream = path == "/v2/events";
    match shared.change(|inner| inner.fault.meet(&path)) {
        FaultKind::None | FaultKind::SilentEvents => next.run(request).await,
        FaultKind::Status(code, body) => {
            ([(header::CONTENT_TYPE, "text/html;charset=iso-8859-1")], (code, body)).into_response()
        }
        FaultKind::Html => {
            let page = "<!DOCTYPE html>\n<html><body><h1>It works!</h1></body></html>\n";
            ([(header::CONTENT_TYPE, "text/html;charset=utf-8")], page).into_response()
        }
        FaultKind::Garbage => ([(header::CONTENT_TYPE, "application/json")], "{\"apps\":[{\"id\":").into_response(),
        FaultKind::RefuseEvents if is_stream => {
            (StatusCode::BAD_GATEWAY, "Could not determine the current leader").into_response()
        }
        FaultKind::Empty if path == "/v2/apps" => axum::Json(json!({"apps": []})).into_response(),
        FaultKind::Empty if path.starts_with("/v2/") && path.ends_with("/tasks") => {
            axum::Json(json!({"tasks": []})).into_response()
        }
        FaultKind::Truncate if !is_stream => truncated(next.run(request).await).await,
        FaultKind::LoseTasks(percent) if path.starts_with("/v2/apps") => {
            let mut request = request;
            request.headers_mut().remove(header::ACCEPT_ENCODING);
            with_fewer_tasks(next.run(request).await, percent).await
        }
        FaultKind::RefuseEvents | FaultKind::Empty | FaultKind::Truncate | FaultKind::LoseTasks(_) => {
            next.run(request).await
        }
    }
}

async fn with_fewer_tasks(response: Response, percent: usize) -> Response {
    let (mut head, body) = response.into_parts();
    let whole = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let Ok(mut json) = serde_json::from_slice::<Value>(&whole) else {
        return Response::from_parts(head, Body::from(whole));
    };
    let lose = |app: &mut Value| {
        if let Some(tasks) = app["tasks"].as_array_mut() {
            tasks.truncate(tasks.len() - (tasks.len() * percent).div_ceil(100));
        }
    };
    if let Some(apps) = json.get_mut("apps").and_then(Value::as_array_mut) {
        apps.iter_mut().for_each(lose);
    } else if let Some(app) = json.get_mut("app") {
        lose(app);
    }
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, Body::from(json.to_string()))
}

async fn truncated(response: Response) -> Response {
    let (mut head, body) = response.into_parts();
    let Ok(whole) = to_bytes(body, usize::MAX).await else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    head.headers.insert(header::CONTENT_LENGTH, whole.len().into());
    head.headers.remove(header::TRANSFER_ENCODING);
    let half = whole.slice(..whole.len() / 2);
    let body = stream::unfold(Some(half), |half| async {
        match half {
            Some(half) if !half.is_empty() => Some((Ok(half), Some(Bytes::new()))),
            // The error closes the connection; the pause before it lets the half be written first.
            Some(_) => {
                tokio::task::yield_now().await;
                Some((Err(io::Error::other("cut in half on purpose")), None))
            }
            None => None,
        }
    });
    Response::from_parts(head, Body::from_stream(body))
}
