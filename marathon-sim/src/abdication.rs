//! The end of a leader: its process exits, and another node leads after some seconds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use super::command;
use super::response::answer;
use super::state::{Inner, Shared};

/// From the answer to `DELETE /v2/leader` to the end of the process.
const EXIT: Duration = Duration::from_millis(500);
/// How long there is no leader: a real Marathon took 2.4 to 2.9 s.
pub(super) const ELECTION: Duration = Duration::from_millis(2_500);

/// `DELETE /v2/leader`
pub(super) async fn delete_leader(State(shared): State<Arc<Shared>>) -> Response {
    let later = Arc::clone(&shared);
    tokio::spawn(async move {
        tokio::time::sleep(EXIT).await;
        if !later.change(|inner| abdicate(inner, ELECTION)) {
            later.exit.notify_one();
        }
    });
    answer(json!({"message": "Leadership abdicated"}))
}

/// Ends the listener and the streams of the leader, without a word to their clients. The others answer 502 during the
/// election, then one of them leads, without any health result. Returns false if the leader was the only node.
pub(super) fn abdicate(inner: &mut Inner, election: Duration) -> bool {
    let leader = inner.cluster.leader().to_owned();
    // A leader whose name belongs to no node is the first node.
    let leads = inner.gate.nodes.iter().position(|node| node.to_string() == leader).unwrap_or(0);
    if leads < inner.gate.nodes.len() {
        let node = inner.gate.nodes.remove(leads);
        inner.stops.remove(&node).into_iter().for_each(|stop| stop.notify_one());
    }
    command::lose_leader(inner, StatusCode::BAD_GATEWAY, None);
    let Some(next) = inner.gate.nodes.first().copied() else { return false };
    command::change_leader(inner, Some(next.to_string()));
    inner.gate.leaderless = Some((StatusCode::BAD_GATEWAY, Instant::now().checked_add(election)));
    true
}
