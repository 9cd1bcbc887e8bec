//! Settings with two values.

use serde::Deserialize;

use super::kind::{FromLabel, Kind, Parsed};

/// The kind of value `true` or `false`; `false` without the setting.
pub(super) struct YesNo;

impl Kind for YesNo {
    type Value = bool;
    type InFile = bool;
    type Saved = bool;

    fn default_value() -> bool {
        false
    }

    fn from_file(is_set: bool) -> bool {
        is_set
    }

    fn log_text(is_set: &bool) -> String {
        is_set.to_string()
    }

    fn save(is_set: &bool) -> bool {
        *is_set
    }

    fn restore(is_set: bool) -> Result<bool, String> {
        Ok(is_set)
    }
}

impl FromLabel for YesNo {
    fn values() -> String {
        "`true` or `false`".into()
    }

    fn from_label(text: &str) -> Parsed<bool> {
        Parsed::or_must_be(text.parse().ok(), "true or false")
    }
}

/// The kind of value `keep` or `reset`, for connections whose backend is gone; the value is whether to reset them.
pub(super) struct OnRemoval;

/// The value in the services file.
#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum InFile {
    Keep,
    Reset,
}

impl Kind for OnRemoval {
    type Value = bool;
    type InFile = InFile;
    type Saved = bool;

    fn default_value() -> bool {
        false
    }

    fn from_file(value: InFile) -> bool {
        value == InFile::Reset
    }

    fn log_text(reset: &bool) -> String {
        if *reset { "reset" } else { "keep" }.into()
    }

    fn save(reset: &bool) -> bool {
        *reset
    }

    fn restore(reset: bool) -> Result<bool, String> {
        Ok(reset)
    }
}

impl FromLabel for OnRemoval {
    fn values() -> String {
        "`keep` or `reset`".into()
    }

    fn from_label(text: &str) -> Parsed<bool> {
        let reset = match text {
            "keep" => Some(false),
            "reset" => Some(true),
            _ => None,
        };
        Parsed::or_must_be(reset, "keep or reset")
    }
}
