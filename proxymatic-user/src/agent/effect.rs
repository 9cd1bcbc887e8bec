//! The effects that the parts of the agent return, for the event loop to carry out.

use std::time::Duration;

use proxymatic_common::{ListenerEntry, ListenerKey};

use crate::{backend_probe::Order, sockets::SweepRequest};

/// Something that a part of the agent wants done. Only the event loop writes to the data plane or sends to a worker.
#[derive(Debug, PartialEq)]
pub(super) enum Effect {
    /// Plan the desired state and apply the writes.
    Publish(Trigger),
    /// Keep new connections away from a backend for this time.
    Eject(u32, Duration),
    /// End the ejection of a backend, which lasted this long.
    Readmit(u32, Duration),
    /// Add to the open connections that are counted for a backend; below zero, subtract.
    CorrectBackend(u32, i64),
    /// Add to the open connections that are counted for a service; below zero, subtract.
    CorrectService(u32, i64),
    /// Write the bind count at which a service port had no listener.
    SetNoListener(u32, u64),
    /// Publish a listener of the host for the hooks, or remove it.
    PublishListener(ListenerKey, Option<ListenerEntry>),
    /// Write that the operator drains this generation of a backend.
    Drain(u32, u32),
    /// Order a probe, or end one.
    Probe(Order),
    /// Sweep the sockets of this host.
    Sweep(SweepRequest),
    /// Read the addresses of network namespaces.
    ReadNetns,
    /// Run the self-test.
    SelfTest,
    /// Write the state file at the next tick that permits it.
    SaveSoon,
}

/// Why the agent plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trigger {
    /// A source has answered: the time until the last write is a metric.
    Answer,
    /// An input other than a source's answer has changed, or a write is to be tried again.
    Other,
}
