//! A kind of value: how a value of a setting is read and written.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

/// A kind of value.
pub(super) trait Kind {
    /// The type of the field of [`Settings`](super::Settings).
    type Value;
    /// The value in the services file. Its deserializer returns the error for an invalid value.
    type InFile: DeserializeOwned;
    /// The value in the state file.
    type Saved: Saved;

    /// Returns the value of a service without the setting.
    fn default_value() -> Self::Value;
    /// Returns the value of the services file.
    fn from_file(value: Self::InFile) -> Self::Value;
    /// Returns the value for the log.
    fn log_text(value: &Self::Value) -> String;
    /// Returns the value for the state file.
    fn save(value: &Self::Value) -> Self::Saved;
    /// Returns the value of the state file.
    ///
    /// # Errors
    /// The model does not know the value; the text says which.
    fn restore(saved: Self::Saved) -> Result<Self::Value, String>;
}

/// A kind of value that a label may have.
pub(super) trait FromLabel: Kind {
    /// Returns the values that the label may have, for docs/labels.md.
    fn values() -> String;
    /// Parses the text of a label.
    fn from_label(text: &str) -> Parsed<Self::Value>;
}

/// A value as it was written.
pub(super) enum Parsed<T> {
    /// A valid value.
    Valid(T),
    /// A value of which a part is invalid: the value without it, and a warning.
    Partly(T, String),
    /// No value, and the reason.
    Invalid(String),
}

impl<T> Parsed<T> {
    /// Makes a valid value; without one, an invalid value whose reason begins with "must be" and the allowed values.
    pub(super) fn or_must_be(value: Option<T>, what: &str) -> Self {
        value.map_or_else(|| Self::Invalid(format!("must be {what}; it is left out")), Self::Valid)
    }
}

/// A value in the state file.
pub(super) trait Saved: Serialize + DeserializeOwned {
    /// Returns whether the file does not contain the value.
    fn is_absent(&self) -> bool {
        false
    }
}

impl Saved for bool {}
impl Saved for Duration {}
impl Saved for String {}
impl<T: Serialize + DeserializeOwned> Saved for Option<T> {
    fn is_absent(&self) -> bool {
        self.is_none()
    }
}
