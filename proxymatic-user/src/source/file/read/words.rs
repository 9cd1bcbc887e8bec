//! The words of a file for what a service may ask beyond its port and its backends: the values are those of the labels.

use std::time::Duration;

use serde::Deserialize;

use crate::model::{Allowed, CONNECT, Policy, duration};

/// How a backend is chosen.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct PolicyWord(pub(super) Policy);

impl TryFrom<String> for PolicyWord {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|must| format!("policy {text:?}: {must}"))
    }
}

/// A duration.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct TimeWord(pub(super) Duration);

impl TryFrom<String> for TimeWord {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        duration(&text).map(Self).ok_or_else(|| format!("{text:?} must be a duration such as 500ms, 30s or 5m"))
    }
}

/// A duration above 0.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "TimeWord")]
pub(super) struct TimeoutWord(pub(super) Duration);

impl TryFrom<TimeWord> for TimeoutWord {
    type Error = &'static str;

    fn try_from(TimeWord(time): TimeWord) -> Result<Self, Self::Error> {
        if time.is_zero() { Err("a timeout must be above 0; without one, leave it out") } else { Ok(Self(time)) }
    }
}

/// How long things may take.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TimeoutWords {
    connect: Option<TimeoutWord>,
    client: Option<TimeoutWord>,
    server: Option<TimeoutWord>,
}

impl TimeoutWords {
    pub(super) fn connect(self) -> Duration {
        self.connect.map_or(CONNECT, |TimeoutWord(time)| time)
    }

    pub(super) fn client(self) -> Option<Duration> {
        self.client.map(|TimeoutWord(time)| time)
    }

    pub(super) fn server(self) -> Option<Duration> {
        self.server.map(|TimeoutWord(time)| time)
    }
}

/// One entry of an allow list.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct AllowedWord(pub(super) Allowed);

impl TryFrom<String> for AllowedWord {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|must| format!("{text:?} {must}"))
    }
}

/// What becomes of connections whose backend is gone.
#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum RemovedWord {
    #[default]
    Keep,
    Reset,
}
