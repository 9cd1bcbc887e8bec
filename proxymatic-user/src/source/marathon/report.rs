//! The reports of the Marathon source.

use crate::source::{backoff::Retry, failure::Failure, id::SourceId, report::Report};

/// Returns the report of a failure.
pub(super) fn failed(failure: &Failure, retry: &Retry) -> Report {
    Report::failed(SourceId::Marathon, failure.url.clone(), failure.to_string(), retry)
}
