//! The agent: parts that own their state and return effects, and one event loop that routes events to them.

mod adopted_snapshot;
mod bind_log;
mod census;
mod change_log;
mod desired_state;
mod drains;
mod drift;
mod effect;
mod ejections;
mod event;
mod event_bus;
mod event_loop;
mod first_answers;
mod global_settings;
mod host;
mod latencies;
mod listeners;
mod merge;
mod netns_reads;
mod publish;
mod self_tests;
mod setup;
mod sources;
mod state_persistence;
mod status;
mod sweeps;
mod watch_event;
mod watch_list;
mod workers;

pub(crate) use adopted_snapshot::adopted;
pub(crate) use desired_state::{Inputs, SelfTestService, SourceInput, desired_state, drained_in, is_full, parked_in};
pub use event::Event;
pub use event_loop::Agent;
pub(crate) use first_answers::{Before, FirstAnswers};
pub use global_settings::GlobalSettings;
pub(crate) use latencies::BUCKETS;
pub use latencies::Latencies;
pub use self_tests::SelfTest;
pub use sources::{PATIENCE, Restored, SILENCE};
pub use status::{
    AgentStatus, AwaitedBackend, EjectedBackend, ProbeCounts, RestoredFrom, SelfTestStatus, SourceFailure, SourceStatus,
};
pub use watch_event::WatchEvent;
pub use workers::WorkerHandles;
