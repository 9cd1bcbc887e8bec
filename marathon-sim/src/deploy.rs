//! Changes of apps by Marathon's own API. Without a [`super::Mesos`], apps wait for their tasks.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::error::CommandError;
use super::event_sequences::deployment_id;
use super::response::{answer, message};
use super::state::Shared;
use super::view;

type Shares = State<Arc<Shared>>;

/// `POST /v2/apps`
pub(super) async fn create(State(shared): Shares, body: Bytes) -> Response {
    shared.change(|inner| {
        let Some(app) = json_of(&body) else { return not_json() };
        let id = app["id"].as_str().unwrap_or("").to_owned();
        if inner.cluster.app(&id).is_some() {
            return message(StatusCode::CONFLICT, format!("An app with id [{id}] already exists."));
        }
        match inner.cluster.put(app) {
            Err(refused) => unprocessable(&refused),
            Ok(_) => {
                let app = inner.cluster.app(&id).map(|it| view::app(inner.cluster.dialect(), &id, it));
                (StatusCode::CREATED, answer(app)).into_response()
            }
        }
    })
}

/// `PUT /v2/apps/{id}`: makes the app, or a new version of it.
pub(super) async fn put(State(shared): Shares, Path(path): Path<String>, body: Bytes) -> Response {
    let Some(mut app) = json_of(&body) else { return not_json() };
    app["id"] = json!(format!("/{}", path.trim_matches('/')));
    shared.change(|inner| match inner.cluster.put(app.clone()) {
        Err(refused) => unprocessable(&refused),
        Ok(version) => {
            let id = app["id"].as_str().unwrap_or("");
            answer(json!({"version": version, "deploymentId": deployment_id(id, version)}))
        }
    })
}

/// `DELETE /v2/apps/{id}` and `DELETE /v2/apps/{id}/tasks/{task}`.
pub(super) async fn delete(State(shared): Shares, Path(path): Path<String>) -> Response {
    let path = format!("/{}", path.trim_matches('/'));
    shared.change(|inner| {
        let cluster = &mut inner.cluster;
        let done = match path.rsplit_once("/tasks/") {
            Some((_, task)) => cluster.kill(task),
            None => cluster.delete(&path),
        };
        match done {
            Ok(()) => answer(json!({"version": cluster.now(), "deploymentId": deployment_id(&path, cluster.now())})),
            Err(refused) => message(StatusCode::NOT_FOUND, refused.to_string()),
        }
    })
}

fn json_of(body: &Bytes) -> Option<Value> {
    serde_json::from_slice(body).ok().filter(Value::is_object)
}

fn not_json() -> Response {
    message(StatusCode::BAD_REQUEST, "Invalid JSON")
}

fn unprocessable(refused: &CommandError) -> Response {
    message(StatusCode::UNPROCESSABLE_ENTITY, refused.to_string())
}
