//! Clusters that tests start with.

/// Marathon, an agent, and one app.
pub(crate) mod cluster;
/// An agent that reads its services from a file.
pub(crate) mod file_source;
/// Marathon, an agent, and services whose replicas answer with one word.
pub(crate) mod word_replicas;
