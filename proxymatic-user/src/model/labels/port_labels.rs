//! The labels that concern one app's share in a service. The other labels are settings of the service.

use std::num::NonZeroU32;

use super::share_list::ShareList;
use crate::model::{GivenSettings, MAX_WEIGHT, Weight, duration};

/// The values of one port's labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortLabels {
    /// The service port in place of the one that Marathon assigned. An explicit port also means that apps of one group may share it.
    pub service_port: Option<u16>,
    /// The share of new connections for each task.
    pub weight: Weight,
    /// The limit of open connections from this host to each task, already divided by the size of the group; 0 for none.
    pub maxconn: u32,
    /// The apps of other groups that may join the service, if this app owns it.
    pub share: ShareList,
    /// The labels for the service as a whole.
    pub service: GivenSettings,
}

/// The declaration of a label.
pub(super) struct PortLabel {
    /// The key.
    pub(super) key: &'static str,
    /// The values, the default and the meaning, for docs/labels.md; `None` for a label that has no effect yet.
    pub(super) document: Option<[&'static str; 3]>,
    /// Applies the text of the label, or returns the reason why not. The number is the size of the group of hosts.
    pub(super) apply: fn(&mut PortLabels, &str, NonZeroU32) -> Result<(), String>,
}

/// The declarations of all labels for an app's share, in the order of the documents.
pub(super) const PORT_LABELS: [PortLabel; 6] = [
    PortLabel {
        key: "servicePort",
        document: Some([
            "1 to 65535",
            "Marathon's service port; of a pod, none",
            "the port that programs connect to; apps of one group that name one port this way share it (canary)",
        ]),
        apply: service_port,
    },
    PortLabel {
        key: "share",
        document: Some([
            "ids of apps, and `/group/*`, with commas between",
            "none",
            "the apps of other groups that may join the port, if this app owns it; see below",
        ]),
        apply: share,
    },
    PortLabel {
        key: "weight",
        document: Some([
            "0 to 1000",
            "500",
            "share of new connections, relative to the other tasks of the port; 0 drains",
        ]),
        apply: weight,
    },
    PortLabel {
        key: "maxconn",
        document: Some([
            "0 or more",
            "0",
            "connections open at once to a task, over all agents (`--group-size` divides it); 0 is no bound",
        ]),
        apply: maxconn,
    },
    PortLabel {
        key: "mode",
        document: Some(["`tcp`", "`tcp`", "`http` is forwarded as plain TCP, and said so"]),
        apply: mode,
    },
    PortLabel { key: "slowstart", document: None, apply: slowstart },
];

fn service_port(port: &mut PortLabels, value: &str, _: NonZeroU32) -> Result<(), String> {
    match value.parse::<u16>() {
        Ok(number) if number > 0 => port.service_port = Some(number),
        Ok(_) | Err(_) => {
            return Err("must be a number from 1 to 65535; the port that Marathon assigned is used".into());
        }
    }
    Ok(())
}

fn share(port: &mut PortLabels, value: &str, _: NonZeroU32) -> Result<(), String> {
    let (list, wrong) = ShareList::parse(value);
    port.share = list;
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

fn weight(port: &mut PortLabels, value: &str, _: NonZeroU32) -> Result<(), String> {
    let default = Weight::default().get();
    port.weight = value
        .parse()
        .ok()
        .and_then(Weight::new)
        .ok_or_else(|| format!("must be a number from 0 to {MAX_WEIGHT}; the default of {default} is used"))?;
    Ok(())
}

fn maxconn(port: &mut PortLabels, value: &str, group_size: NonZeroU32) -> Result<(), String> {
    let number: u32 =
        value.parse().map_err(|_| format!("must be a number from 0 (no limit) to {}; no limit is used", u32::MAX))?;
    // Rounding up also keeps a limit: a share of 0 would mean no limit.
    port.maxconn = number.div_ceil(group_size.get());
    Ok(())
}

fn mode(_: &mut PortLabels, value: &str, _: NonZeroU32) -> Result<(), String> {
    match value {
        "tcp" => Ok(()),
        "http" => Err("HTTP is not parsed; connections are forwarded as plain TCP".into()),
        _ => Err("must be tcp or http; tcp is used".into()),
    }
}

fn slowstart(_: &mut PortLabels, value: &str, _: NonZeroU32) -> Result<(), String> {
    Err(match duration(value).is_some_and(|time| !time.is_zero()) {
        true => "is not supported by this version".into(),
        false => "must be a duration above 0 such as 500ms, 30s or 5m; it is left out".into(),
    })
}
