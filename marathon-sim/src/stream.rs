//! `GET /v2/events`: frames from the event bus, with heartbeats in between.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use futures_util::stream;
use tokio::net::TcpListener;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::event_bus::Frames;
use super::fault::FaultKind;
use super::state::Shared;

/// The peer of a connection, and a second handle of the connection, which can close it.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    address: SocketAddr,
    socket: Option<Arc<std::net::TcpStream>>,
}

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        // Jetty sets TCP_NODELAY too: without it, an event may wait for the acknowledgement of the event before.
        let _ = stream.io().set_nodelay(true);
        let socket = stream.io().as_fd().try_clone_to_owned().ok();
        Self { address: *stream.remote_addr(), socket: socket.map(|fd| Arc::new(fd.into())) }
    }
}

/// Attaches a listener.
pub(super) async fn events(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Response {
    let accept: Vec<&[u8]> = headers.get_all(header::ACCEPT).iter().map(|value| value.as_bytes()).collect();
    if accept != [b"text/event-stream"] {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let filter: BTreeSet<String> =
        query.into_iter().filter(|(key, _)| key == "event_type").map(|(_, kind)| kind).collect();
    let remote = peer.address.ip().to_string();
    let joined = shared.change(|inner| {
        let frames = (!inner.closing).then(|| inner.hub.join(remote.clone(), filter, peer.socket))?;
        inner.cluster.stream_changed(&remote, true);
        Some(frames)
    });
    let Some(frames) = joined else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let mut beat = interval_at(Instant::now() + shared.heartbeat, shared.heartbeat);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let listener = Listener { shared, frames, beat, line_feed_due: false, rest: Bytes::new() };
    let body = stream::unfold(listener, |mut listener| async {
        let bytes = listener.next().await?;
        Some((Ok::<_, Infallible>(bytes), listener))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream;charset=utf-8"), (header::CONNECTION, "close")];
    (headers, Body::from_stream(body)).into_response()
}

struct Listener {
    shared: Arc<Shared>,
    frames: Frames,
    beat: Interval,
    line_feed_due: bool,
    /// The rest of a frame that is sent in chunks.
    rest: Bytes,
}

impl Listener {
    async fn next(&mut self) -> Option<Bytes> {
        if std::mem::take(&mut self.line_feed_due) {
            // A pause in the body makes hyper flush: carriage return and line feed are sent separately, as Marathon
            // does.
            tokio::task::yield_now().await;
            return Some(Bytes::from_static(b"\n"));
        }
        if !self.rest.is_empty() {
            tokio::task::yield_now().await;
            let rest = std::mem::take(&mut self.rest);
            return Some(self.piece(rest));
        }
        loop {
            tokio::select! {
                biased;
                frame = self.frames.next() => return Some(self.piece(frame?)),
                _ = self.beat.tick() => {
                    if self.shared.look(|inner| inner.fault.kind != FaultKind::SilentEvents) {
                        self.line_feed_due = true;
                        return Some(Bytes::from_static(b"\r"));
                    }
                }
            }
        }
    }
}

impl Listener {
    /// Returns the next chunk of these bytes.
    fn piece(&mut self, mut bytes: Bytes) -> Bytes {
        let most =
            self.shared.look(|inner| inner.hub.delivery.pieces).unwrap_or(usize::MAX).clamp(1, bytes.len().max(1));
        self.rest = bytes.split_off(most.min(bytes.len()));
        bytes
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.change(|inner| {
            if let Some(remote) = inner.hub.leave(self.frames.id) {
                inner.cluster.stream_changed(&remote, false);
            }
        });
    }
}
