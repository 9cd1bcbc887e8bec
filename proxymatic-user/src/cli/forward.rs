//! Connects the channel of a worker to the channel of the agent.

use tokio::sync::mpsc;

use crate::agent::Event;

/// Sends everything that a worker reports to the agent as events, until one of the channels closes.
pub(super) async fn forward<T>(mut heard: mpsc::Receiver<T>, events: mpsc::Sender<Event>, event: impl Fn(T) -> Event) {
    while let Some(one) = heard.recv().await {
        if events.send(event(one)).await.is_err() {
            return;
        }
    }
}
