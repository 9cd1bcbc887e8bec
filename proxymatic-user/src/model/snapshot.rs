//! Everything a source knows at one moment.

use std::collections::BTreeMap;

use super::{Service, ServiceKey};

/// Something that was asked for and is not done, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Complaint {
    /// The Marathon app id, or the id of the task where only that is concerned.
    pub app: String,
    /// One sentence that names the thing, the reason and the remedy.
    pub reason: String,
}

/// Everything a source knows at one moment. Always whole: what is not in it is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Every service, by what programs dial.
    pub services: BTreeMap<ServiceKey, Service>,
    /// What was left out of `services`, and why.
    pub complaints: Vec<Complaint>,
}
