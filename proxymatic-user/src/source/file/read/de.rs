//! The values of a file for the settings of a service. They are the same as in labels.

use std::time::Duration;

use serde::Deserialize;

use crate::model::{AllowRule, CONNECT, Policy, duration};

/// The policy.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct PolicyToml(pub(super) Policy);

impl TryFrom<String> for PolicyToml {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|must| format!("policy {text:?}: {must}"))
    }
}

/// A duration.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct TimeToml(pub(super) Duration);

impl TryFrom<String> for TimeToml {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        duration(&text).map(Self).ok_or_else(|| format!("{text:?} must be a duration such as 500ms, 30s or 5m"))
    }
}

/// A duration above 0.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "TimeToml")]
pub(super) struct TimeoutToml(pub(super) Duration);

impl TryFrom<TimeToml> for TimeoutToml {
    type Error = &'static str;

    fn try_from(TimeToml(time): TimeToml) -> Result<Self, Self::Error> {
        if time.is_zero() { Err("a timeout must be above 0; without one, leave it out") } else { Ok(Self(time)) }
    }
}

/// The timeouts.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TimeoutsToml {
    connect: Option<TimeoutToml>,
    client: Option<TimeoutToml>,
    server: Option<TimeoutToml>,
}

impl TimeoutsToml {
    pub(super) fn connect(self) -> Duration {
        self.connect.map_or(CONNECT, |TimeoutToml(time)| time)
    }

    pub(super) fn client(self) -> Option<Duration> {
        self.client.map(|TimeoutToml(time)| time)
    }

    pub(super) fn server(self) -> Option<Duration> {
        self.server.map(|TimeoutToml(time)| time)
    }
}

/// One entry of an allow list.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct AllowToml(pub(super) AllowRule);

impl TryFrom<String> for AllowToml {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|must| format!("{text:?} {must}"))
    }
}

/// The fate of connections whose backend is gone.
#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum RemovedToml {
    #[default]
    Keep,
    Reset,
}
