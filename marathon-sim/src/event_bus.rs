//! The listeners of the event stream, without HTTP: a listener is a queue of frames.

use std::collections::BTreeSet;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use axum::body::Bytes;
use nix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;

use super::api_version::Dialect;
use super::delivery::{Delivery, STRANGE};
use super::event::Event;

/// All listeners.
#[derive(Debug, Default)]
pub(super) struct EventBus {
    next: u64,
    listeners: Vec<Listener>,
    /// The delivery of events.
    pub(super) delivery: Delivery,
    held: Vec<Event>,
    /// When the first frame of the latest change was taken to be written, in ns of CLOCK_MONOTONIC; 0 before that.
    written: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Listener {
    id: u64,
    remote: String,
    /// The requested event types; empty means all.
    filter: BTreeSet<String>,
    frames: mpsc::UnboundedSender<Bytes>,
    outstanding: Arc<AtomicUsize>,
    /// A second handle of its connection, to close it even if nothing can be written to it.
    socket: Option<Arc<TcpStream>>,
}

/// The reading end of one listener. It ends when the bus has dropped the listener.
#[derive(Debug)]
pub(super) struct Frames {
    /// Identifies the listener for [`EventBus::leave`].
    pub(super) id: u64,
    frames: mpsc::UnboundedReceiver<Bytes>,
    outstanding: Arc<AtomicUsize>,
    written: Arc<AtomicU64>,
}

impl Frames {
    /// Returns the next frame, or `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        let frame = self.frames.recv().await?;
        self.outstanding.fetch_sub(1, Ordering::Relaxed);
        let _ = self.written.compare_exchange(0, monotonic(), Ordering::Relaxed, Ordering::Relaxed);
        Some(frame)
    }
}

impl EventBus {
    /// Adds a listener for these event types (for all if none are named).
    pub(super) fn join(&mut self, remote: String, filter: BTreeSet<String>, socket: Option<Arc<TcpStream>>) -> Frames {
        let (sender, frames) = mpsc::unbounded_channel();
        let outstanding = Arc::new(AtomicUsize::new(0));
        self.next += 1;
        let id = self.next;
        self.listeners.push(Listener {
            id,
            remote,
            filter,
            frames: sender,
            outstanding: Arc::clone(&outstanding),
            socket,
        });
        Frames { id, frames, outstanding, written: Arc::clone(&self.written) }
    }

    /// Removes a listener. Returns its address if it was still attached.
    pub(super) fn leave(&mut self, id: u64) -> Option<String> {
        let at = self.listeners.iter().position(|listener| listener.id == id)?;
        Some(self.listeners.swap_remove(at).remote)
    }

    /// Returns the number of listeners.
    pub(super) fn len(&self) -> usize {
        self.listeners.len()
    }

    /// Returns when the first frame of the latest change was written to a listener, in ns of CLOCK_MONOTONIC; `None`
    /// before that.
    pub(super) fn written(&self) -> Option<u64> {
        Some(self.written.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }

    /// Drops all listeners: each reads the frames that were sent, then the end.
    pub(super) fn close(&mut self) {
        self.listeners.clear();
    }

    /// Sends the events of one change. The limit is checked before, so that one large change alone disconnects no
    /// listener: at most [`Delivery::outstanding`] frames and one change wait for a listener. A slow listener is
    /// disconnected, or loses this change, by the Marathon version.
    pub(super) fn publish(&mut self, events: &[Event], dialect: Dialect) {
        let events = self.delivery.pass(&mut self.held, events);
        if events.is_empty() {
            return;
        }
        let most = self.delivery.outstanding();
        let slow = |listener: &Listener| listener.outstanding.load(Ordering::Relaxed) >= most;
        if !dialect.drops_events() {
            for socket in self.listeners.iter().filter(|it| slow(it)).filter_map(|it| it.socket.as_ref()) {
                // A connection that is already closed is fine.
                let _ = socket.shutdown(Shutdown::Both);
            }
            self.listeners.retain(|listener| !slow(listener));
        }
        let told: Vec<&Listener> = self.listeners.iter().filter(|listener| !slow(listener)).collect();
        self.written.store(0, Ordering::Relaxed);
        for event in &events {
            let mut frame = None;
            for listener in &told {
                let asked = listener.filter.is_empty() || listener.filter.contains(event.kind);
                if !asked && event.kind != STRANGE {
                    continue;
                }
                let frame = frame.get_or_insert_with(|| framed(event)).clone();
                listener.outstanding.fetch_add(1, Ordering::Relaxed);
                // Fails only if the stream is being dropped; its listener then leaves by itself.
                let _ = listener.frames.send(frame);
            }
        }
    }
}

/// Nanoseconds of CLOCK_MONOTONIC, which all processes of the machine share.
fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(std::time::Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

fn framed(event: &Event) -> Bytes {
    format!("event: {}\r\ndata: {}\r\n\r\n", event.kind, event.data).into()
}
