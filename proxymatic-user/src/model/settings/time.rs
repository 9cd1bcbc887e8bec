//! Settings that are durations, written as in HAProxy.

use std::time::Duration;

use serde::Deserialize;

use super::kind::{FromLabel, Kind, Parsed};
use crate::model::duration;

/// The default timeout for an unanswered connect.
pub const CONNECT: Duration = Duration::from_secs(3);

/// A duration in the services file.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct InFile(Duration);

impl TryFrom<String> for InFile {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        duration(&text).map(Self).ok_or_else(|| format!("{text:?} must be a duration such as 500ms, 30s or 5m"))
    }
}

/// A duration above 0 in the services file.
#[derive(Deserialize)]
#[serde(try_from = "InFile")]
pub(super) struct TimeoutInFile(Duration);

impl TryFrom<InFile> for TimeoutInFile {
    type Error = &'static str;

    fn try_from(InFile(time): InFile) -> Result<Self, Self::Error> {
        if time.is_zero() { Err("a timeout must be above 0; without one, leave it out") } else { Ok(Self(time)) }
    }
}

/// An idle timeout in the services file.
#[derive(Deserialize)]
#[serde(try_from = "InFile")]
pub(super) struct IdleTimeoutInFile(Duration);

impl TryFrom<InFile> for IdleTimeoutInFile {
    type Error = &'static str;

    fn try_from(InFile(time): InFile) -> Result<Self, Self::Error> {
        if time < MIN_IDLE {
            Err("an idle timeout must be at least 1s; without one, leave it out")
        } else {
            Ok(Self(time))
        }
    }
}

/// The shortest idle timeout. A shorter one would reset connections between any two of their packets.
const MIN_IDLE: Duration = Duration::from_secs(1);

fn timeout_from_label(text: &str) -> Option<Duration> {
    duration(text).filter(|time| !time.is_zero())
}

const TIMEOUT: &str = "a duration above 0 such as 500ms, 30s or 5m";

/// The kind of value of the timeout for an unanswered connect; [`CONNECT`] without the setting.
pub(super) struct ConnectTimeout;

impl Kind for ConnectTimeout {
    type Value = Duration;
    type InFile = Option<TimeoutInFile>;
    type Saved = Duration;

    fn default_value() -> Duration {
        CONNECT
    }

    fn from_file(value: Option<TimeoutInFile>) -> Duration {
        value.map_or_else(Self::default_value, |TimeoutInFile(time)| time)
    }

    fn log_text(time: &Duration) -> String {
        format!("{time:?}")
    }

    fn save(time: &Duration) -> Duration {
        *time
    }

    fn restore(time: Duration) -> Result<Duration, String> {
        Ok(time)
    }
}

impl FromLabel for ConnectTimeout {
    fn values() -> String {
        "a duration".into()
    }

    fn from_label(text: &str) -> Parsed<Duration> {
        Parsed::or_must_be(timeout_from_label(text), TIMEOUT)
    }
}

/// The kind of value of a timeout that a service has only with the setting.
pub(super) struct IdleTimeout;

impl Kind for IdleTimeout {
    type Value = Option<Duration>;
    type InFile = Option<IdleTimeoutInFile>;
    type Saved = Option<Duration>;

    fn default_value() -> Option<Duration> {
        None
    }

    fn from_file(value: Option<IdleTimeoutInFile>) -> Option<Duration> {
        value.map(|IdleTimeoutInFile(time)| time)
    }

    fn log_text(time: &Option<Duration>) -> String {
        time.map_or("none".into(), |time| format!("{time:?}"))
    }

    fn save(time: &Option<Duration>) -> Option<Duration> {
        *time
    }

    /// An earlier version may have saved a shorter one.
    fn restore(time: Option<Duration>) -> Result<Option<Duration>, String> {
        Ok(time.filter(|time| *time >= MIN_IDLE))
    }
}

impl FromLabel for IdleTimeout {
    fn values() -> String {
        "a duration from `1s`".into()
    }

    fn from_label(text: &str) -> Parsed<Option<Duration>> {
        let time = duration(text).filter(|time| *time >= MIN_IDLE);
        Parsed::or_must_be(time.map(Some), "a duration of at least 1s, such as 30s or 5m")
    }
}

/// The kind of value of a duration that may be 0, which is the value without the setting.
pub(super) struct AffinityTime;

impl Kind for AffinityTime {
    type Value = Duration;
    type InFile = InFile;
    type Saved = Duration;

    fn default_value() -> Duration {
        Duration::ZERO
    }

    fn from_file(InFile(time): InFile) -> Duration {
        time
    }

    fn log_text(time: &Duration) -> String {
        format!("{time:?}")
    }

    fn save(time: &Duration) -> Duration {
        *time
    }

    fn restore(time: Duration) -> Result<Duration, String> {
        Ok(time)
    }
}

impl FromLabel for AffinityTime {
    fn values() -> String {
        "a duration, or 0".into()
    }

    fn from_label(text: &str) -> Parsed<Duration> {
        Parsed::or_must_be(duration(text), "a duration such as 30s or 5m, or 0 for none")
    }
}
