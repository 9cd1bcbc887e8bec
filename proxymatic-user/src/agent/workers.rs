//! Who does for the agent what takes time.

use std::{cell::RefCell, sync::mpsc as threads};

use proxymatic_common::Class;
use tokio::sync::mpsc;

use crate::{backend_probe, host_checks::PortSet, plan::MapState, sockets::SweepRequest};

/// The ends of the channels to them. Without one, what it would do is not done.
#[derive(Debug, Default)]
pub struct WorkerHandles {
    /// To who probes backends.
    pub probes: Option<mpsc::UnboundedSender<backend_probe::Order>>,
    /// To who looks through sockets: one job at a time.
    pub sweeps: Option<mpsc::Sender<SweepRequest>>,
    /// To who makes the self-test: one at a time.
    pub tests: Option<mpsc::Sender<()>>,
    /// To who looks at this host: the service ports on its addresses, and which were told last, if any were.
    pub ports: Option<(threads::Sender<PortSet>, RefCell<Option<PortSet>>)>,
}

impl WorkerHandles {
    /// At most two orders for each backend that is ejected: nothing that could pile up.
    pub(super) fn probe(&self, order: backend_probe::Order) {
        if let Some(probes) = &self.probes {
            // Nobody listens any more: this process is about to end.
            let _ = probes.send(order);
        }
    }

    pub(super) const fn sweeps(&self) -> bool {
        self.sweeps.is_some()
    }

    /// False where it could not be given.
    pub(super) fn sweep(&self, job: SweepRequest) -> bool {
        self.sweeps.as_ref().is_some_and(|sweeps| sweeps.try_send(job).is_ok())
    }

    /// False where it could not be ordered.
    pub(super) fn test(&self) -> bool {
        self.tests.as_ref().is_some_and(|tests| tests.try_send(()).is_ok())
    }

    /// Tells the service ports on addresses of this host, where they have changed.
    pub(super) fn tell_ports(&self, tables: &MapState) {
        let Some((ports, told)) = &self.ports else { return };
        let host = tables.frontends().keys().filter(|frontend| frontend.class == Class::HOST);
        let now: PortSet = host.map(|frontend| frontend.port.get()).collect();
        // No services at all is worth telling too: what an agent before this one has reserved is then given back.
        if told.borrow().as_ref() != Some(&now) {
            // Nobody listens any more: this process is about to end.
            let _ = ports.send(now.clone());
            told.replace(Some(now));
        }
    }
}
