//! A snapshot: everything that a source says at one time.

use std::{collections::BTreeMap, sync::Arc};

use super::{Service, ServiceKey};

/// Something that was asked for but not done, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Warning {
    /// The Marathon app id, or the task id if only a task is concerned.
    pub app: String,
    /// One sentence that names the thing, the reason and the remedy.
    pub reason: String,
}

/// Everything that a source says at one time. Always complete: a service that is missing here is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Every service, by its key. Shared, so that a snapshot is cheap to pass on. Two snapshots with the same shared
    /// services compare quickly.
    pub services: BTreeMap<ServiceKey, Arc<Service>>,
    /// Requested services and settings that `services` lacks, each with the reason.
    pub warnings: Vec<Warning>,
}

impl Snapshot {
    /// Replaces each service that equals one of an earlier snapshot by that shared service.
    pub fn share(&mut self, earlier: &Self) {
        for (key, service) in &mut self.services {
            if let Some(same) = earlier.services.get(key).filter(|before| *before == service) {
                *service = Arc::clone(same);
            }
        }
    }
}
