//! The label grammar: `com.meltwater.proxymatic.port.<index>.<key>`, index by index what an app asks for a port.
//!
//! Reading is total: a label that is wrong costs only itself, and is one sentence in [`Labels::complaints`].

use std::{collections::BTreeMap, num::NonZeroU32};

use super::{MAX_WEIGHT, Weight};

/// What every label of ours starts with; the index of the port and a key follow.
pub const PREFIX: &str = "com.meltwater.proxymatic.port.";

/// The keys of the grammar, as they are written.
const KEYS: [&str; 12] = [
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
];

/// What the labels ask for one port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortLabels {
    /// The service port instead of the one Marathon assigned. That it is set also says that sharing it is meant.
    pub service_port: Option<u16>,
    /// The share of new connections each task gets.
    pub weight: Weight,
    /// The most connections to each task from this host, already divided by the size of the group; 0 for no bound.
    pub maxconn: u32,
}

/// The labels of one app, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    ports: BTreeMap<usize, PortLabels>,
    /// One sentence for each label that is not followed as it is written, in order of the labels.
    pub complaints: Vec<String>,
}

impl Labels {
    /// Reads the labels of an app that has `ports` ports. `group_size` is the number of hosts that share a `maxconn`.
    pub fn read<'a>(
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        ports: usize,
        group_size: NonZeroU32,
    ) -> Self {
        let mut read = Self::default();
        for (label, value) in labels {
            let Some(rest) = label.strip_prefix(PREFIX) else { continue };
            match place(label, rest, ports) {
                Ok((index, key)) => {
                    if let Err(reason) = follow(read.ports.entry(index).or_default(), key, value.trim(), group_size) {
                        read.complaints.push(format!("label {label}={value}: {reason}"));
                    }
                }
                Err(reason) => read.complaints.push(reason),
            }
        }
        read
    }

    /// What is asked for the port of this index in portMappings or portDefinitions.
    pub fn port(&self, index: usize) -> PortLabels {
        self.ports.get(&index).copied().unwrap_or_default()
    }
}

/// Splits what follows the prefix into the index of a port the app has and a key of the grammar.
fn place<'a>(label: &str, rest: &'a str, ports: usize) -> Result<(usize, &'a str), String> {
    let (index, key) = rest.split_once('.').unwrap_or((rest, ""));
    let Ok(index) = index.parse::<usize>() else {
        return Err(format!("label {label}: {index:?} is not the index of a port; write {PREFIX}0.<key>"));
    };
    if !KEYS.contains(&key) {
        return Err(format!("label {label} is unknown; the nearest known one is {PREFIX}{index}.{}", nearest(key)));
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
        "mode" => match value {
            "tcp" => {}
            "http" => return Err("connections are forwarded as plain TCP, without a look at the HTTP in them".into()),
            _ => return Err("must be tcp or http; tcp is used".into()),
        },
        "balance" if value == "leastconn" => {}
        "expose" if value == "false" => {}
        _ => return Err("is not supported by this version".into()),
    }
    Ok(())
}

/// The known key that takes the fewest edits to reach, upper and lower case being the same.
fn nearest(key: &str) -> &'static str {
    let key = key.to_ascii_lowercase();
    KEYS.into_iter().min_by_key(|known| edits(&key, &known.to_ascii_lowercase())).unwrap_or(KEYS[0])
}

/// How many letters must be put in, taken out or changed to make `a` into `b` (Levenshtein's distance).
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(group_size: u32, labels: &[(&str, &str)]) -> Labels {
        let labels: Vec<_> = labels.iter().map(|(key, value)| (format!("{PREFIX}{key}"), *value)).collect();
        let labels = labels.iter().map(|(key, value)| (key.as_str(), *value));
        Labels::read(labels, 2, NonZeroU32::new(group_size).unwrap())
    }

    #[test]
    fn every_label_of_this_version_is_followed() {
        let labels = read(
            1,
            &[
                ("0.servicePort", "1234"),
                ("0.weight", " 250 "),
                ("1.weight", "0"),
                ("1.maxconn", "100"),
                ("1.mode", "tcp"),
                ("1.balance", "leastconn"),
                ("1.expose", "false"),
            ],
        );
        assert_eq!(labels.complaints, [""; 0]);
        let zero = PortLabels { service_port: Some(1234), weight: Weight::new(250).unwrap(), maxconn: 0 };
        assert_eq!(labels.port(0), zero);
        assert_eq!(labels.port(1), PortLabels { service_port: None, weight: Weight::new(0).unwrap(), maxconn: 100 });
        assert_eq!(labels.port(7), PortLabels::default());
    }

    #[test]
    fn maxconn_is_shared_among_the_group_rounded_up_and_never_becomes_unbounded() {
        for (group_size, value, share) in
            [(1, "10", 10), (3, "10", 4), (16, "1", 1), (16, "0", 0), (7, "4294967295", 613_566_757)]
        {
            assert_eq!(read(group_size, &[("0.maxconn", value)]).port(0).maxconn, share, "{value} / {group_size}");
        }
    }

    #[test]
    fn what_is_not_followed_is_said_and_the_default_stays() {
        for (key, value, says) in [
            ("0.weight", "1001", "0.weight=1001: must be a number from 0 to 1000; the default of 500 is used"),
            ("0.weight", "-1", "must be a number from 0 to 1000"),
            ("0.servicePort", "0", "must be a number from 1 to 65535"),
            ("0.servicePort", "65536", "must be a number from 1 to 65535"),
            ("0.maxconn", "many", "must be a number from 0 (no bound)"),
            ("0.mode", "http", "forwarded as plain TCP"),
            ("0.mode", "smtp", "must be tcp or http"),
            ("0.balance", "random", "0.balance=random: is not supported by this version"),
            ("0.timeout.client", "30", "is not supported by this version"),
            ("0.expose", "true", "is not supported by this version"),
            ("0.serviceport", "1", "the nearest known one is com.meltwater.proxymatic.port.0.servicePort"),
            ("1.timeout.clinet", "1", "port.1.timeout.client"),
            ("1.wieght", "1", "port.1.weight"),
            ("0", "1", "is unknown"),
            ("", "1", "is not the index of a port"),
            ("x.weight", "1", "\"x\" is not the index of a port"),
            ("2.weight", "1", "only the ports of index 0 to 1"),
            ("99999999999999999999.weight", "1", "is not the index of a port"),
        ] {
            let labels = read(1, &[(key, value)]);
            assert_eq!(labels.complaints.len(), 1, "{key}={value}");
            assert!(labels.complaints[0].contains(says), "{key}={value}: {}", labels.complaints[0]);
            assert_eq!((labels.port(0), labels.port(1)), Default::default(), "{key}={value}");
        }
    }

    #[test]
    fn labels_of_others_are_not_ours() {
        let labels = [("HAPROXY_0_MODE", "http"), ("com.meltwater.proxymatic", "1"), ("", "")];
        assert_eq!(Labels::read(labels, 0, NonZeroU32::MIN), Labels::default());
    }
}
