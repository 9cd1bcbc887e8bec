//! JSON responses as Marathon writes them.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

/// Returns a response with this status and a JSON object with this `message`.
pub(super) fn message(status: StatusCode, text: impl Into<String>) -> Response {
    (status, answer(json!({"message": text.into()}))).into_response()
}

/// Returns a response of status 200 with this body as JSON.
pub(super) fn answer(body: impl Serialize) -> Response {
    match serde_json::to_vec(&body) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
