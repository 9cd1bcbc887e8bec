//! Converts Marathon's responses to the model. Pure and total: any bytes have a result.
//!
//! The ports of a task belong to the version that it was started from, and its host may be a name. So there are three
//! steps: [`parse`] the response, look up what it needs ([`required_lookups`]), and [`convert`] it with the results.

mod apps;
mod pods;
mod reading;
mod task_state;

pub use self::pods::pod_version;
use self::reading::Reading;
use super::{
    api::{App, Lenient, Listing, PodStatus, Task},
    lookups::{Lookups, Options, RequiredLookups},
    task_notes::TaskNotes,
};
use crate::model::Snapshot;

/// Parses the response to `GET /v2/apps?embed=apps.tasks&embed=apps.readiness`.
pub fn parse(body: &[u8]) -> Result<Listing, serde_json::Error> {
    serde_json::from_slice(body)
}

/// Parses the response to `GET /v2/pods/::status`.
pub fn parse_pods(body: &[u8]) -> Result<Vec<Lenient<PodStatus>>, serde_json::Error> {
    serde_json::from_slice(body)
}

/// Returns what must be looked up before [`convert`].
pub fn required_lookups(listing: &Listing) -> RequiredLookups {
    let mut required = RequiredLookups::default();
    apps::required_lookups(&listing.apps, &mut required);
    pods::required_lookups(&listing.pods, &mut required);
    required
}

/// Converts a listing.
///
/// The service ports of every app become services, also if no task serves them: a connection to such a port is refused.
pub fn convert(listing: &Listing, lookups: &Lookups, options: &Options) -> Snapshot {
    convert_with_notes(listing, lookups, options).0
}

/// Converts a listing, and returns what it says about tasks besides their services.
pub(super) fn convert_with_notes(listing: &Listing, lookups: &Lookups, options: &Options) -> (Snapshot, TaskNotes) {
    let mut reading = Reading::new(listing, lookups, options);
    for app in &listing.apps {
        match app {
            Lenient::Good(app) => reading.add_app(app),
            Lenient::Bad { id, reason } => {
                let app = id.as_deref().unwrap_or("an app without an id");
                reading.warn(app, format!("its description cannot be read, so it is left out: {reason}"));
            }
        }
    }
    for pod in &listing.pods {
        match pod {
            Lenient::Good(pod) => reading.add_pod(pod),
            Lenient::Bad { id, reason } => {
                let pod = id.as_deref().unwrap_or("a pod without an id");
                reading.warn(pod, format!("its description cannot be read, so it is left out: {reason}"));
            }
        }
    }
    if let Some(reason) = &listing.pods_unknown {
        reading.warn("pods", reason.clone());
    }
    reading.finish()
}

/// Converts one task of an app of the listing as if there were no other; `None` if it was started from an earlier
/// definition.
pub(super) fn convert_task(
    listing: &Listing,
    app: &App,
    task: &Task,
    lookups: &Lookups,
    options: &Options,
) -> Option<Snapshot> {
    let mut reading = Reading::new(listing, lookups, options);
    reading.add_single_task(app, task).then(|| reading.finish().0)
}

#[cfg(test)]
mod tests;
