//! The events that wake the agent.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    backend_probe::{Answered, Probed},
    model::Warning,
    sockets::SweepReport,
    source::Report,
};

/// Anything that wakes the agent.
#[derive(Debug)]
pub enum Event {
    /// A source has answered or failed.
    Source(Report),
    /// An interface of this host has changed.
    LinksChanged,
    /// All addresses of this host.
    Addresses(BTreeSet<IpAddr>),
    /// Events of the hooks, in order.
    HookEvents(Vec<proxymatic_common::Event>),
    /// An ejected backend has answered its probe.
    ProbeSucceeded(Answered),
    /// The probe of a new backend has a result.
    Probed(Probed),
    /// A moment has come for which the agent waits: [`Agent::wake_at`](super::Agent::wake_at).
    Wake,
    /// A sweep of the sockets has ended.
    SweepDone(Box<SweepReport>),
    /// A self-test has ended.
    SelfTestDone(Result<(), String>),
    /// All warnings about this host.
    HostWarnings(Vec<Warning>),
    /// All warnings about interfaces.
    Interfaces(Vec<Warning>),
    /// The state file is written; `Err` is one sentence.
    StateSaved(Result<(), String>),
    /// A second has passed.
    Tick,
    /// The agent will stop soon: it announces that, and goes on until [`Event::Stop`].
    Drain,
    /// The agent stops. The data plane stays.
    Stop,
}
