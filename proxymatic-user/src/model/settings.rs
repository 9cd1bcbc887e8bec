//! The settings of a service: everything except its port and its backends.
//!
//! Each setting is declared once, in the table of this file. A row yields the field of [`Settings`], the label and its
//! row in docs/labels.md, the comparison of the labels of several apps, the key of the services file, the text in the log, and
//! the field of the state file. A [`Kind`] is how a value is written.
//!
//! A new setting that hooks read also needs a field of `Service` in `proxymatic-common`, which is a new map ABI version,
//! and its value in `plan/settings.rs`.

mod allow_list;
mod given;
mod kind;
mod limit;
mod policy;
mod switch;
mod time;

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize, de::MapAccess};

use self::{
    allow_list::AllowList,
    given::{last_part, read_value, set},
    kind::{FromLabel, Kind, Saved},
    limit::Limit,
    policy::PolicyName,
    switch::{OnRemoval, YesNo},
    time::{AffinityTime, ConnectTimeout, IdleTimeout},
};
pub use self::{policy::Policy, time::CONNECT};
use super::AllowRule;

/// The declaration of a setting as a value.
#[derive(Clone, Copy, Debug)]
pub(super) struct SettingSpec {
    /// The key in the services file. Keys with the same word before the dot form a table of the file.
    pub(super) file: &'static str,
    /// The label of a port, if there is one.
    pub(super) label: Option<LabelSpec>,
}

/// The declaration of a label as a value, for docs/labels.md.
#[derive(Clone, Copy, Debug)]
pub(super) struct LabelSpec {
    /// The key of the label. It is a second name of the setting in the services file.
    pub(super) key: &'static str,
    /// The values that the label may have.
    pub(super) values: fn() -> String,
    /// The value of a service without the label.
    pub(super) default: &'static str,
    /// What the label does.
    pub(super) meaning: &'static str,
}

macro_rules! settings {
    ($(
        $(#[doc = $doc:literal])+
        $field:ident: $value:ty as $kind:ident {
            $(log: $log:literal,)?
            $(label: $label:literal, default: $default:literal, meaning: $meaning:literal,)?
            file: $file:literal,
        }
    )+) => {
        /// The declarations of all settings, in the order of the documents and of the log.
        pub(super) const SETTINGS: &[SettingSpec] = &[$(SettingSpec {
            file: $file,
            label: [
                $(Some(LabelSpec { key: $label, values: $kind::values, default: $default, meaning: $meaning }),)?
                None,
            ][0],
        }),+];

        /// The settings of a service. The default holds for a service without labels.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Settings {
            $($(#[doc = $doc])+ pub $field: $value,)+
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($field: $kind::default_value(),)+ }
            }
        }

        impl Settings {
            /// Returns each setting in the words of the log, always in the same order.
            pub(crate) fn log_texts(&self) -> Vec<String> {
                vec![$(format!("{} {}", concat!($($log)? $($label)?), $kind::log_text(&self.$field)),)+]
            }
        }

        /// The settings that the labels of a port, or an entry of the services file, give; `None` for a missing one.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct GivenSettings {
            $($field: Option<$value>,)+
        }

        impl GivenSettings {
            /// Applies a label, or returns the reason why not.
            pub(super) fn apply_label(&mut self, key: &str, text: &str) -> Result<(), String> {
                match key {
                    $($($label => set(&mut self.$field, $kind::from_label(text)),)?)+
                    _ => Err("is unknown".into()),
                }
            }

            /// Reads the value of a key of the services file.
            pub(crate) fn read_from_file<'de, M: MapAccess<'de>>(
                &mut self,
                key: &'static str,
                map: &mut M,
            ) -> Result<(), M::Error> {
                match key {
                    $($file => read_value::<$kind, M>(&mut self.$field, last_part($file), map),)+
                    _ => Err(serde::de::Error::unknown_field(key, &[])),
                }
            }

            /// Returns the labels whose value differs from the settings of a service.
            pub(crate) fn differences(&self, settings: &Settings) -> Vec<&'static str> {
                let mut differ = Vec::new();
                $(if self.$field.as_ref().is_some_and(|given| *given != settings.$field) {
                    differ.push(concat!($($log)? $($label)?));
                })+
                differ
            }

            /// Returns the settings of the service.
            pub fn settings(self) -> Settings {
                Settings { $($field: self.$field.unwrap_or_else($kind::default_value),)+ }
            }
        }

        /// The settings in the state file. The key of a setting is the name of its field, which must not change: an
        /// unknown key is skipped, and a missing one means the default.
        #[derive(Serialize, Deserialize)]
        #[serde(default)]
        pub(crate) struct SavedSettings {
            $(#[serde(skip_serializing_if = "Saved::is_absent")] $field: <$kind as Kind>::Saved,)+
        }

        impl Default for SavedSettings {
            fn default() -> Self {
                (&Settings::default()).into()
            }
        }

        impl From<&Settings> for SavedSettings {
            fn from(settings: &Settings) -> Self {
                Self { $($field: $kind::save(&settings.$field),)+ }
            }
        }

        impl SavedSettings {
            /// Returns the settings; `Err` names what the model does not know.
            pub(crate) fn restore(self) -> Result<Settings, String> {
                Ok(Settings { $($field: $kind::restore(self.$field)?,)+ })
            }
        }
    };
}

settings! {
    /// The rule that picks a backend.
    policy: Policy as PolicyName {
        label: "balance",
        default: "`leastconn`",
        meaning: "how a task is chosen; see below",
        file: "policy",
    }
    /// The limit of open connections from this host to all backends together; 0 for none, `None` for the agent's
    /// setting for all services.
    maxconn: Option<u32> as Limit {
        log: "maxconn",
        file: "max-connections",
    }
    /// The timeout for an unanswered connect; zero leaves it to the system.
    connect: Duration as ConnectTimeout {
        label: "timeout.connect",
        default: "`3s`",
        meaning: "how long an unanswered connect may take",
        file: "timeout.connect",
    }
    /// The idle timeout of the client's side; `None` for none.
    client: Option<Duration> as IdleTimeout {
        label: "timeout.client",
        default: "for ever",
        meaning: "how long that side of a connection may be idle",
        file: "timeout.client",
    }
    /// The idle timeout of the backend's side; `None` for none.
    server: Option<Duration> as IdleTimeout {
        label: "timeout.server",
        default: "for ever",
        meaning: "how long that side of a connection may be idle",
        file: "timeout.server",
    }
    /// How long a client stays with its backend after its last connection; zero for no affinity.
    affinity: Duration as AffinityTime {
        label: "affinity",
        default: "0",
        meaning: "how long a client stays with its task after its last connection; 0 is not at all",
        file: "affinity",
    }
    /// The clients that may connect; `None` for all. With an empty list no client may connect.
    allow: Option<BTreeSet<AllowRule>> as AllowList {
        label: "allow",
        default: "everybody",
        meaning: "who may connect; see below",
        file: "allow",
    }
    /// Whether the agent resets TCP connections to a backend that is gone.
    reset: bool as OnRemoval {
        label: "on-backend-removed",
        default: "`keep`",
        meaning: "what becomes of open TCP connections when their task is gone",
        file: "on-backend-removed",
    }
    /// Whether remote clients may use the service.
    expose: bool as YesNo {
        label: "expose",
        default: "`false`",
        meaning: "whether clients on other machines are served, where the agent has an `--interface`",
        file: "expose",
    }
}

impl Settings {
    /// Returns the paths of the cgroups in the allow list.
    pub fn cgroups(&self) -> impl Iterator<Item = &str> {
        self.allow.iter().flatten().filter_map(|allowed| match allowed {
            AllowRule::Cgroup(path) => Some(path.as_str()),
            AllowRule::Network(..) => None,
        })
    }
}

#[cfg(test)]
mod tests;
