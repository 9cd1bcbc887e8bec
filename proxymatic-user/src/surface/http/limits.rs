//! Connections, and what each may cost: so many at once, so long, one request each.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use super::Rejected;

/// How many connections may be open at once.
const AT_ONCE: usize = 64;
/// How many of them one address may have, so that a health check gets through whatever another client does.
pub(super) const OF_ONE: usize = 32;
/// How long the head of a request may take to come.
pub(super) const HEAD: Duration = Duration::from_secs(5);
/// How long a connection may take altogether.
const WHOLE: Duration = Duration::from_secs(30);
/// How large the head of a request may be, in bytes: the least that hyper can do.
const HEAD_BYTES: usize = 8192;
/// How many headers it may have.
const HEADERS: usize = 64;

/// What those get that are one too many.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";

/// Answers each connection. Never ends.
pub(super) async fn serve(listener: &TcpListener, router: &Router, rejected: &Rejected) {
    let open = Open::default();
    loop {
        match listener.accept().await {
            Ok((stream, client)) => match open.enter(client.ip()) {
                Some(place) => {
                    let router = router.clone();
                    tokio::spawn(async move {
                        let _place = place;
                        let _ = timeout(WHOLE, one(stream, router)).await;
                    });
                }
                None => {
                    rejected.fetch_add(1, Ordering::Relaxed);
                    // What does not fit into the socket's buffer at once is not waited for.
                    let _ = stream.try_write(TOO_MANY);
                }
            },
            // Out of descriptors, most likely: it passes.
            Err(error) => {
                tracing::warn!("cannot accept connections of the status endpoint: {error}");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// One request on one connection. A connection that stayed open would only take a place.
async fn one(stream: TcpStream, router: Router) -> Result<(), hyper::Error> {
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await
}

/// The connections that are open, by client.
#[derive(Clone, Debug, Default)]
struct Open(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// Counts for as long as it lives.
struct Place {
    open: Open,
    client: IpAddr,
}

impl Open {
    fn enter(&self, client: IpAddr) -> Option<Place> {
        let mut by_client = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // At most as many clients as there are places.
        let all: usize = by_client.values().sum();
        let own = by_client.get(&client).copied().unwrap_or(0);
        if all >= AT_ONCE || own >= OF_ONE {
            return None;
        }
        by_client.insert(client, own + 1);
        Some(Place { open: self.clone(), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_client = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = by_client.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                by_client.remove(&self.client);
            }
        }
    }
}
