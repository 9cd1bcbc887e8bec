//! Limits of the status endpoint: concurrent connections, time for each, one request each.

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

use crate::surface::metrics::Rejected;

/// The largest number of open connections.
const MAX_OPEN: usize = 64;
/// The largest number of open connections from one address, so that one client cannot block a health check.
pub(super) const PER_CLIENT: usize = 32;
/// The timeout for the head of a request.
pub(super) const HEAD: Duration = Duration::from_secs(5);
/// The timeout for a whole connection.
const WHOLE: Duration = Duration::from_secs(30);
/// The largest head of a request, in bytes: the smallest limit that hyper allows.
const HEAD_BYTES: usize = 8192;
/// The largest number of headers.
const HEADERS: usize = 64;

/// The answer to connections beyond the limits.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";

/// Serves connections, for ever.
pub(super) async fn serve(listener: &TcpListener, router: &Router, rejected: &Rejected) {
    let open = Open::default();
    loop {
        match listener.accept().await {
            Ok((stream, client)) => match open.acquire(client.ip()) {
                Some(slot) => {
                    let router = router.clone();
                    tokio::spawn(async move {
                        let _slot = slot;
                        let _ = timeout(WHOLE, serve_one(stream, router)).await;
                    });
                }
                None => {
                    rejected.fetch_add(1, Ordering::Relaxed);
                    // The rest of the answer is dropped if the socket's buffer cannot take all of it at once.
                    let _ = stream.try_write(TOO_MANY);
                }
            },
            // Most likely the process has no free descriptors; the cause passes.
            Err(error) => {
                tracing::warn!("cannot accept connections of the status endpoint: {error}");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Serves one request. The connection is then closed, because an idle connection would use up the limit.
async fn serve_one(stream: TcpStream, router: Router) -> Result<(), hyper::Error> {
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await
}

/// The open connections, by client.
#[derive(Clone, Debug, Default)]
struct Open(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A slot among the open connections, given back on drop.
struct Slot {
    open: Open,
    client: IpAddr,
}

impl Open {
    fn acquire(&self, client: IpAddr) -> Option<Slot> {
        let mut by_client = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The map has at most as many clients as there are places.
        let all: usize = by_client.values().sum();
        let own = by_client.get(&client).copied().unwrap_or(0);
        if all >= MAX_OPEN || own >= PER_CLIENT {
            return None;
        }
        by_client.insert(client, own + 1);
        Some(Slot { open: self.clone(), client })
    }
}

impl Drop for Slot {
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
