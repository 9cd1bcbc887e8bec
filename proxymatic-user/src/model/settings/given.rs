//! One setting that may be given: set by a label, or read from the services file.

use serde::de::{Error as _, MapAccess};

use super::kind::{Kind, Parsed};

/// Sets the value of a label, or returns the reason why not.
pub(super) fn set<T>(given: &mut Option<T>, parsed: Parsed<T>) -> Result<(), String> {
    let (value, warning) = match parsed {
        Parsed::Valid(value) => (Some(value), Ok(())),
        Parsed::Partly(value, warning) => (Some(value), Err(warning)),
        Parsed::Invalid(warning) => (None, Err(warning)),
    };
    if value.is_some() {
        *given = value;
    }
    warning
}

/// Reads the value of a key of the services file. The file may have a key once.
pub(super) fn read_value<'de, K: Kind, M: MapAccess<'de>>(
    given: &mut Option<K::Value>,
    key: &'static str,
    map: &mut M,
) -> Result<(), M::Error> {
    if given.is_some() {
        return Err(M::Error::duplicate_field(key));
    }
    *given = Some(K::from_file(map.next_value()?));
    Ok(())
}

/// Returns the part of a key after the name of its table.
pub(super) fn last_part(key: &'static str) -> &'static str {
    key.split_once('.').map_or(key, |(_, name)| name)
}
