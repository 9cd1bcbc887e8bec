//! A limit of open connections.

use super::kind::Kind;

/// The kind of value of a limit; `None` for the agent's setting for all services.
pub(super) struct Limit;

impl Kind for Limit {
    type Value = Option<u32>;
    type InFile = Option<u32>;
    type Saved = Option<u32>;

    fn default_value() -> Option<u32> {
        None
    }

    fn from_file(limit: Option<u32>) -> Option<u32> {
        limit
    }

    fn log_text(limit: &Option<u32>) -> String {
        limit.map_or("as for all".into(), |limit| limit.to_string())
    }

    fn save(limit: &Option<u32>) -> Option<u32> {
        *limit
    }

    fn restore(limit: Option<u32>) -> Result<Option<u32>, String> {
        Ok(limit)
    }
}
