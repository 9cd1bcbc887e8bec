//! What identifies a backend across the answers of its source.

use std::net::SocketAddr;

use crate::{model::Backend, plan::BackendEntry};

/// A backend across the answers of its source: other tasks use an address and port again within seconds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    pub(super) task: String,
    pub(super) at: SocketAddr,
}

impl Identity {
    /// Returns whether this is a backend in the maps.
    pub(super) fn is(&self, entry: &BackendEntry) -> bool {
        self.task == entry.task && self.at == entry_socket(entry)
    }

    /// Returns the place of the backend in a list that is sorted by task.
    pub(super) fn position(&self, backends: &[Backend]) -> Option<usize> {
        let first = backends.partition_point(|it| it.task < self.task);
        let of_task = backends[first..].iter().take_while(|it| it.task == self.task);
        of_task.zip(first..).find(|(it, _)| socket(it) == self.at).map(|(_, at)| at)
    }
}

/// Returns the address and port of a backend.
pub(super) fn socket(backend: &Backend) -> SocketAddr {
    SocketAddr::new(backend.address.to_canonical(), backend.port)
}

/// Returns the address and port of a backend in the maps.
pub(super) fn entry_socket(entry: &BackendEntry) -> SocketAddr {
    SocketAddr::new(entry.backend.address.into(), entry.backend.port.get())
}
