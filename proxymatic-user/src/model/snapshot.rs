//! Everything a source knows at one moment.

use std::{collections::BTreeMap, sync::Arc};

use super::{Service, ServiceKey};

/// Something that was asked for and is not done, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Warning {
    /// The Marathon app id, or the id of the task where only that is concerned.
    pub app: String,
    /// One sentence that names the thing, the reason and the remedy.
    pub reason: String,
}

/// Everything a source knows at one moment. Always whole: what is not in it is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Every service, by what programs dial. Shared, so that a snapshot is cheap to pass on, and quick to compare with
    /// another one that has the very same services.
    pub services: BTreeMap<ServiceKey, Arc<Service>>,
    /// What was left out of `services`, and why.
    pub warnings: Vec<Warning>,
}

impl Snapshot {
    /// Shares with an earlier snapshot the services that are equal in both.
    pub fn share(&mut self, earlier: &Self) {
        for (key, service) in &mut self.services {
            if let Some(same) = earlier.services.get(key).filter(|before| *before == service) {
                *service = Arc::clone(same);
            }
        }
    }
}
