//! The links of interfaces among the pins: `links/<hook>@<interface>`, by the name that the operator gave.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
};

use super::{
    super::{Pins, bpf, pins::remove},
    PACKET_HOOKS,
};

/// A link of an interface, pinned.
#[derive(Debug)]
pub(super) struct PinnedLink {
    /// Itself.
    pub(super) link: OwnedFd,
    /// Where it is, and what it runs.
    pub(super) at: bpf::OnInterface,
    /// Its pin.
    pub(super) pin: PathBuf,
}

/// The name of a pin. bpffs keeps dots for itself; no interface has a colon in its name (dev_valid_name).
pub(super) fn pin_name(hook: &str, interface: &str) -> String {
    format!("{hook}@{}", interface.replace('.', ":"))
}

/// The hook and the interface that a pin is named after.
pub(super) fn read_name(pin: &str) -> Option<(&'static str, String)> {
    let (hook, interface) = pin.split_once('@')?;
    let hook = PACKET_HOOKS.into_iter().find(|it| *it == hook)?;
    Some((hook, interface.replace(':', ".")))
}

/// The links under these pins that are attached somewhere, by hook and interface. The pins of others, whose interface is
/// gone, are removed: nothing comes of them any more.
pub(super) fn standing(pins: &Pins) -> BTreeMap<(&'static str, String), PinnedLink> {
    let mut found = BTreeMap::new();
    for (key, pin) in pinned(pins) {
        let Ok(link) = bpf::open(&pin) else { continue };
        match bpf::on_interface(link.as_fd()) {
            Ok(at) if at.interface == 0 => {
                tracing::debug!("the interface of {} is gone", pin.display());
                let _ = remove(&pin);
            }
            Ok(at) => drop(found.insert(key, PinnedLink { link, at, pin })),
            // Something else is in the place of a link: whoever needs the place will say so.
            Err(_) => {}
        }
    }
    found
}

/// What is pinned as a link of an interface, whether it is attached or not, in the order in which hooks are put in place.
pub(in super::super) fn pinned(pins: &Pins) -> Vec<((&'static str, String), PathBuf)> {
    let entries = fs::read_dir(pins.link("")).into_iter().flatten().flatten();
    let named = |entry: fs::DirEntry| Some((read_name(entry.file_name().to_str()?)?, entry.path()));
    let mut found: Vec<_> = entries.filter_map(named).collect();
    found.sort();
    found.sort_by_key(|((hook, _), _)| PACKET_HOOKS.iter().position(|it| it == hook));
    found
}

/// Pins a link in place of whatever had its name.
pub(super) fn pin(link: OwnedFd, path: &std::path::Path) -> io::Result<()> {
    remove(path)?;
    bpf::pin(link.as_fd(), path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pins_have_no_dots_and_lead_back() {
        for (interface, pin) in [("eth0", "tc_ingress@eth0"), ("eth0.100", "tc_ingress@eth0:100")] {
            assert_eq!(pin_name("tc_ingress", interface), pin);
            assert_eq!(read_name(pin), Some(("tc_ingress", interface.to_owned())));
        }
        for other in ["connect4", "connect4@eth0", "tc_ingress"] {
            assert_eq!(read_name(other), None, "{other}");
        }
    }
}
