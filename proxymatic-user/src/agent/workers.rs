//! The channels to the threads and tasks that do what takes time.

use std::{cell::RefCell, sync::mpsc as threads};

use proxymatic_common::Class;
use tokio::sync::mpsc;

use crate::{backend_probe, host_checks::PortSet, plan::MapState, sockets::SweepRequest, state::Job};

/// The channels to the workers. If a channel is `None`, its work is not done.
#[derive(Debug, Default)]
pub struct WorkerHandles {
    /// To the worker that probes backends.
    pub probes: Option<mpsc::UnboundedSender<backend_probe::Order>>,
    /// To the worker that sweeps sockets, with room for one request.
    pub sweeps: Option<mpsc::Sender<SweepRequest>>,
    /// To the worker that reads the addresses of network namespaces.
    pub netns: Option<threads::Sender<()>>,
    /// To the worker that runs the self-test, with room for one order.
    pub tests: Option<mpsc::Sender<()>>,
    /// To the worker that checks this host: the service ports on its addresses; and those that were sent last.
    pub ports: Option<(threads::Sender<PortSet>, RefCell<Option<PortSet>>)>,
    /// To the worker that writes the state file, with room for one job.
    pub saves: Option<mpsc::Sender<Job>>,
}

impl WorkerHandles {
    /// Sends an order to probe a backend. There are at most two orders for each ejected backend, and 200 a second for new
    /// ones, so the channel needs no bound.
    pub(super) fn probe(&self, order: backend_probe::Order) {
        if let Some(probes) = &self.probes {
            // Fails only while this process ends.
            let _ = probes.send(order);
        }
    }

    pub(super) const fn can_sweep(&self) -> bool {
        self.sweeps.is_some()
    }

    /// Returns false if the worker did not take the request.
    pub(super) fn sweep(&self, request: SweepRequest) -> bool {
        self.sweeps.as_ref().is_some_and(|sweeps| sweeps.try_send(request).is_ok())
    }

    pub(super) fn read_netns(&self) {
        if let Some(netns) = &self.netns {
            // Fails only while this process ends.
            let _ = netns.send(());
        }
    }

    /// Returns false if the worker did not take the order.
    pub(super) fn test(&self) -> bool {
        self.tests.as_ref().is_some_and(|tests| tests.try_send(()).is_ok())
    }

    pub(super) const fn can_save(&self) -> bool {
        self.saves.is_some()
    }

    /// Returns false if the worker did not take the job.
    pub(super) fn save(&self, job: Job) -> bool {
        self.saves.as_ref().is_some_and(|saves| saves.try_send(job).is_ok())
    }

    /// Sends the service ports on addresses of this host if they have changed. An empty set is sent too: the worker then
    /// releases the ports that an earlier agent has reserved.
    pub(super) fn send_ports(&self, map_state: &MapState) {
        let Some((ports, sent)) = &self.ports else { return };
        let host = map_state.frontends().keys().filter(|frontend| frontend.class == Class::HOST);
        let now: PortSet = host.map(|frontend| frontend.port.get()).collect();
        if sent.borrow().as_ref() != Some(&now) {
            // Fails only while this process ends.
            let _ = ports.send(now.clone());
            sent.replace(Some(now));
        }
    }
}
