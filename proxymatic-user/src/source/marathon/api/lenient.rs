//! Lenient reading: absent, `null` and empty are the same, and an item that does not fit costs only itself.

use std::collections::BTreeMap;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_json::{Value, value::RawValue};

/// A `T`, or the reason why the JSON is not one.
#[derive(Clone, Debug)]
pub enum Lenient<T> {
    /// The JSON is a `T`.
    Good(T),
    /// The JSON is not a `T`.
    Bad {
        /// The field `id`, if it could be read.
        id: Option<String>,
        /// Why the JSON is not a `T`.
        reason: String,
    },
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The text is tried first: a tree of values takes several times as long to build.
        let text = Box::<RawValue>::deserialize(deserializer)?;
        if let Ok(it) = serde_json::from_str(text.get()) {
            return Ok(Self::Good(it));
        }
        // A tree keeps one of two fields of the same name, which the direct way refuses.
        let value: Value = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        let id = value.get("id").and_then(Value::as_str).map(str::to_owned);
        Ok(match T::deserialize(value) {
            Ok(it) => Self::Good(it),
            Err(error) => Self::Bad { id, reason: error.to_string() },
        })
    }
}

/// Returns the items that could be read.
pub(in crate::source::marathon) fn good<T>(all: &[Lenient<T>]) -> impl Iterator<Item = &T> {
    all.iter().filter_map(|it| match it {
        Lenient::Good(it) => Some(it),
        Lenient::Bad { .. } => None,
    })
}

/// Reads `null` as the default.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a list without its `null`s. Early versions of Marathon write `[null]` for a check without a result.
pub(super) fn without_nulls<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let all: Vec<Option<T>> = or_default(deserializer)?;
    Ok(all.into_iter().flatten().collect())
}

/// Reads labels. Their values are strings, but numbers have been recorded too.
pub(super) fn labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let labels: BTreeMap<String, Value> = or_default(deserializer)?;
    Ok(labels
        .into_iter()
        .filter_map(|(label, value)| match value {
            Value::Null => None,
            Value::String(text) => Some((label, text)),
            other => Some((label, other.to_string())),
        })
        .collect())
}
