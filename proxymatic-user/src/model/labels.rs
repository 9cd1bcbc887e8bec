//! The label grammar: `com.meltwater.proxymatic.port.<index>.<key>` on an app sets `<key>` for the port with that
//! index. `com.meltwater.proxymatic.<key>` on a port itself does the same for that port.
//!
//! Parsing never fails: an invalid label is ignored and gives one warning.

mod known;
mod port_labels;
mod share_list;

use std::{collections::BTreeMap, num::NonZeroU32};

pub use self::{known::label_table, port_labels::PortLabels, share_list::ShareList};
use self::{
    known::{is_known, nearest},
    port_labels::PORT_LABELS,
};

/// The prefix of our labels on an app; the index of the port and a key follow.
pub const PREFIX: &str = "com.meltwater.proxymatic.port.";
/// The prefix of our labels on a port itself; a key follows.
pub const PORT_PREFIX: &str = "com.meltwater.proxymatic.";

/// The parsed labels of one app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    ports: BTreeMap<usize, PortLabels>,
    /// One sentence for each label that was not applied as written, in the order of the labels.
    pub warnings: Vec<String>,
}

impl Labels {
    /// Parses the labels of an app with `ports` ports. `group_size` is the number of hosts that share a `maxconn`.
    pub fn read<'a>(
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        ports: usize,
        group_size: NonZeroU32,
    ) -> Self {
        let mut read = Self::default();
        read.of_app(labels, ports, group_size);
        read
    }

    /// Parses the labels of an app on top of those parsed already.
    pub fn of_app<'a>(
        &mut self,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        ports: usize,
        group_size: NonZeroU32,
    ) {
        for (label, value) in labels {
            let Some(rest) = label.strip_prefix(PREFIX) else { continue };
            match parse_key(label, rest, ports) {
                Ok((index, key)) => {
                    if let Err(reason) = apply(self.ports.entry(index).or_default(), key, value.trim(), group_size) {
                        self.warnings.push(format!("label {label}={value}: {reason}"));
                    }
                }
                Err(reason) => self.warnings.push(reason),
            }
        }
    }

    /// Parses the labels on the port with this index itself.
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

    /// Returns the values for the port with this index in portMappings or portDefinitions.
    pub fn port(&self, index: usize) -> PortLabels {
        self.ports.get(&index).cloned().unwrap_or_default()
    }
}

impl PortLabels {
    /// Parses the labels on a port itself. Returns one sentence for each label that was not applied as written.
    ///
    /// `port` holds the values without these labels.
    pub fn read<'a>(
        mut port: Self,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        group_size: NonZeroU32,
    ) -> (Self, Vec<String>) {
        let mut warnings = Vec::new();
        for (label, value) in labels {
            let Some(key) = label.strip_prefix(PORT_PREFIX) else { continue };
            let applied = match is_known(key) {
                true => apply(&mut port, key, value.trim(), group_size),
                false => Err(format!("is unknown; the nearest known one is {PORT_PREFIX}{}", nearest(key))),
            };
            warnings.extend(applied.err().map(|reason| format!("label {label}={value}: {reason}")));
        }
        (port, warnings)
    }
}

/// Splits the part after the prefix into the index of a port and a key of the grammar.
fn parse_key<'a>(label: &str, rest: &'a str, ports: usize) -> Result<(usize, &'a str), String> {
    let (index, key) = rest.split_once('.').unwrap_or((rest, ""));
    let Ok(index) = index.parse::<usize>() else {
        return Err(format!("label {label}: {index:?} is not the index of a port; write {PREFIX}0.<key>"));
    };
    if !is_known(key) {
        let nearest = nearest(key);
        return Err(format!("label {label} is unknown; the nearest known one is {PREFIX}{index}.{nearest}"));
    }
    match ports.checked_sub(1) {
        None => Err(format!("label {label}: the app has no ports")),
        Some(0) if index > 0 => Err(format!("label {label}: the app has only the port of index 0")),
        Some(last) if index > last => Err(format!("label {label}: the app has only the ports of index 0 to {last}")),
        Some(_) => Ok((index, key)),
    }
}

/// Applies one label, or returns the reason why not; then the default stays.
fn apply(port: &mut PortLabels, key: &str, value: &str, group_size: NonZeroU32) -> Result<(), String> {
    match PORT_LABELS.iter().find(|label| label.key == key) {
        Some(label) => (label.apply)(port, value, group_size),
        None => port.service.apply_label(key, value),
    }
}

#[cfg(test)]
mod tests;
