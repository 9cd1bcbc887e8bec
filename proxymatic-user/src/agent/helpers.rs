//! Who does for the agent what takes time.

use tokio::sync::mpsc;

use crate::{probe, sockets::Job};

/// The ends of the channels to them. Without one, what it would do is not done.
#[derive(Debug, Default)]
pub struct Helpers {
    /// To who probes backends.
    pub probes: Option<mpsc::UnboundedSender<probe::Order>>,
    /// To who looks through sockets: one job at a time.
    pub sweeps: Option<mpsc::Sender<Job>>,
}

impl Helpers {
    /// At most two orders for each backend that is ejected: nothing that could pile up.
    pub(super) fn probe(&self, order: probe::Order) {
        if let Some(probes) = &self.probes {
            // Nobody listens any more: this process is about to end.
            let _ = probes.send(order);
        }
    }

    pub(super) const fn sweeps(&self) -> bool {
        self.sweeps.is_some()
    }

    /// False where it could not be given.
    pub(super) fn sweep(&self, job: Job) -> bool {
        self.sweeps.as_ref().is_some_and(|sweeps| sweeps.try_send(job).is_ok())
    }
}
