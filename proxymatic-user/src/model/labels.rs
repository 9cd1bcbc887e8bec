//! The label grammar: `com.meltwater.proxymatic.port.<index>.<key>`, index by index what an app asks for a port, and
//! `com.meltwater.proxymatic.<key>` among the labels of a port itself.
//!
//! Reading is total: a label that is wrong costs only itself, and is one sentence in the warnings.

mod service;

use std::{collections::BTreeMap, num::NonZeroU32};

pub use service::ServiceLabels;

use super::{MAX_WEIGHT, Weight, duration, suggest};

/// What every label of ours on an app starts with; the index of the port and a key follow.
pub const PREFIX: &str = "com.meltwater.proxymatic.port.";
/// What every label of ours on a port itself starts with; a key follows.
pub const PORT_PREFIX: &str = "com.meltwater.proxymatic.";

/// The keys of the grammar, as they are written.
const KEYS: [&str; 13] = [
    "servicePort",
    "weight",
    "maxconn",
    "mode",
    "timeout.client",
    "timeout.server",
    "timeout.connect",
    "balance",
    "allow",
    "affinity",
    "on-backend-removed",
    "expose",
    "slowstart",
];

/// What the labels ask for one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortLabels {
    /// The service port instead of the one Marathon assigned. That it is set also says that sharing it is meant.
    pub service_port: Option<u16>,
    /// The share of new connections each task gets.
    pub weight: Weight,
    /// The most connections to each task from this host, already divided by the size of the group; 0 for no bound.
    pub maxconn: u32,
    /// What is asked of the service as a whole.
    pub service: ServiceLabels,
}

/// The labels of one app, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    ports: BTreeMap<usize, PortLabels>,
    /// One sentence for each label that is not followed as it is written, in order of the labels.
    pub warnings: Vec<String>,
}

impl Labels {
    /// Reads the labels of an app that has `ports` ports. `group_size` is the number of hosts that share a `maxconn`.
    pub fn read<'a>(
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        ports: usize,
        group_size: NonZeroU32,
    ) -> Self {
        let mut read = Self::default();
        read.of_app(labels, ports, group_size);
        read
    }

    /// Reads the labels of an app on top of what is read already.
    pub fn of_app<'a>(
        &mut self,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        ports: usize,
        group_size: NonZeroU32,
    ) {
        for (label, value) in labels {
            let Some(rest) = label.strip_prefix(PREFIX) else { continue };
            match place(label, rest, ports) {
                Ok((index, key)) => {
                    if let Err(reason) = follow(self.ports.entry(index).or_default(), key, value.trim(), group_size) {
                        self.warnings.push(format!("label {label}={value}: {reason}"));
                    }
                }
                Err(reason) => self.warnings.push(reason),
            }
        }
    }

    /// Reads the labels of the port of this index itself.
    pub fn of_port<'a>(
        &mut self,
        index: usize,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        group_size: NonZeroU32,
    ) {
        let (port, warnings) = PortLabels::read(self.port(index), labels, group_size);
        if port != self.port(index) {
            self.ports.insert(index, port);
        }
        self.warnings.extend(warnings.into_iter().map(|it| format!("port {index}, {it}")));
    }

    /// What is asked for the port of this index in portMappings or portDefinitions.
    pub fn port(&self, index: usize) -> PortLabels {
        self.ports.get(&index).cloned().unwrap_or_default()
    }
}

impl PortLabels {
    /// Reads the labels of a port itself. What is not followed as it is written is said, one sentence for each label.
    ///
    /// `port` is what there is without them.
    pub fn read<'a>(
        mut port: Self,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        group_size: NonZeroU32,
    ) -> (Self, Vec<String>) {
        let mut warnings = Vec::new();
        for (label, value) in labels {
            let Some(key) = label.strip_prefix(PORT_PREFIX) else { continue };
            let followed = match KEYS.contains(&key) {
                true => follow(&mut port, key, value.trim(), group_size),
                false => Err(format!("is unknown; the nearest known one is {PORT_PREFIX}{}", suggest(key, &KEYS))),
            };
            warnings.extend(followed.err().map(|reason| format!("label {label}={value}: {reason}")));
        }
        (port, warnings)
    }
}

/// Splits what follows the prefix into the index of a port the app has and a key of the grammar.
fn place<'a>(label: &str, rest: &'a str, ports: usize) -> Result<(usize, &'a str), String> {
    let (index, key) = rest.split_once('.').unwrap_or((rest, ""));
    let Ok(index) = index.parse::<usize>() else {
        return Err(format!("label {label}: {index:?} is not the index of a port; write {PREFIX}0.<key>"));
    };
    if !KEYS.contains(&key) {
        let nearest = suggest(key, &KEYS);
        return Err(format!("label {label} is unknown; the nearest known one is {PREFIX}{index}.{nearest}"));
    }
    match ports.checked_sub(1) {
        None => Err(format!("label {label}: the app has no ports")),
        Some(0) if index > 0 => Err(format!("label {label}: the app has only the port of index 0")),
        Some(last) if index > last => Err(format!("label {label}: the app has only the ports of index 0 to {last}")),
        Some(_) => Ok((index, key)),
    }
}

/// Does what one label says, or says why not; then the default stays.
fn follow(port: &mut PortLabels, key: &str, value: &str, group_size: NonZeroU32) -> Result<(), String> {
    match key {
        "servicePort" => match value.parse::<u16>() {
            Ok(number) if number > 0 => port.service_port = Some(number),
            Ok(_) | Err(_) => {
                return Err("must be a number from 1 to 65535; the port that Marathon assigned is used".into());
            }
        },
        "weight" => match value.parse().ok().and_then(Weight::new) {
            Some(weight) => port.weight = weight,
            None => {
                let default = Weight::default().get();
                return Err(format!("must be a number from 0 to {MAX_WEIGHT}; the default of {default} is used"));
            }
        },
        "maxconn" => match value.parse::<u32>() {
            // Rounding up also keeps a bound a bound: a share of 0 would mean none.
            Ok(number) => port.maxconn = number.div_ceil(group_size.get()),
            Err(_) => return Err(format!("must be a number from 0 (no bound) to {}; no bound is used", u32::MAX)),
        },
        "mode" => {
            return match value {
                "tcp" => Ok(()),
                "http" => Err("connections are forwarded as plain TCP, without a look at the HTTP in them".into()),
                _ => Err("must be tcp or http; tcp is used".into()),
            };
        }
        "slowstart" => {
            return Err(match duration(value).is_some_and(|time| !time.is_zero()) {
                true => "is not supported by this version".into(),
                false => "must be a duration above 0 such as 500ms, 30s or 5m; it is left out".into(),
            });
        }
        other => return port.service.follow(other, value),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
