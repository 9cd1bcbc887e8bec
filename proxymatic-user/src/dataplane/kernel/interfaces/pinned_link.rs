//! The pinned links of interfaces: `links/<hook>@<interface>`, with the configured name of the interface.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
};

use super::super::{Pins, bpf, hook_names::PACKET_HOOKS, pins::remove};

/// A pinned link of an interface.
#[derive(Debug)]
pub(super) struct PinnedLink {
    /// The open link.
    pub(super) link: OwnedFd,
    /// The interface and the program of the link.
    pub(super) at: bpf::InterfaceLink,
    /// The path of the pin.
    pub(super) pin: PathBuf,
}

/// Returns the name of a pin. bpffs reserves dots, and no interface has a colon in its name (dev_valid_name).
pub(super) fn pin_name(hook: &str, interface: &str) -> String {
    format!("{hook}@{}", interface.replace('.', ":"))
}

/// Returns the hook and the interface of a pin's name.
pub(super) fn read_name(pin: &str) -> Option<(&'static str, String)> {
    let (hook, interface) = pin.split_once('@')?;
    let hook = PACKET_HOOKS.into_iter().find(|it| *it == hook)?;
    Some((hook, interface.replace(':', ".")))
}

/// Returns the attached links under these pins, by hook and interface. Removes the pins of links whose interface is
/// gone, because such a link can never run again.
pub(super) fn attached_links(pins: &Pins) -> BTreeMap<(&'static str, String), PinnedLink> {
    let mut found = BTreeMap::new();
    for (key, pin) in pinned(pins) {
        let Ok(link) = bpf::open(&pin) else { continue };
        match bpf::interface_link_info(link.as_fd()) {
            Ok(at) if at.interface == 0 => {
                tracing::debug!("the interface of {} is gone", pin.display());
                let _ = remove(&pin);
            }
            Ok(at) => drop(found.insert(key, PinnedLink { link, at, pin })),
            // Another object has the name of a link: pinning a link under that name reports it.
            Err(_) => {}
        }
    }
    found
}

/// Returns the hook, the interface and the path of every pin of an interface, in attach order, attached or not.
pub(in super::super) fn pinned(pins: &Pins) -> Vec<((&'static str, String), PathBuf)> {
    let entries = fs::read_dir(pins.link("")).into_iter().flatten().flatten();
    let named = |entry: fs::DirEntry| Some((read_name(entry.file_name().to_str()?)?, entry.path()));
    let mut found: Vec<_> = entries.filter_map(named).collect();
    found.sort();
    found.sort_by_key(|((hook, _), _)| PACKET_HOOKS.iter().position(|it| it == hook));
    found
}

impl Pins {
    /// Returns true if anything is pinned for an interface.
    pub(in super::super) fn serves_interfaces(&self) -> bool {
        !pinned(self).is_empty() || PACKET_HOOKS.iter().any(|hook| self.program(hook).exists())
    }
}

/// Pins a link, and replaces any earlier pin.
pub(super) fn pin(link: OwnedFd, path: &std::path::Path) -> io::Result<()> {
    remove(path)?;
    bpf::pin(link.as_fd(), path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pin_names_have_no_dots_and_can_be_parsed() {
        for (interface, pin) in [("eth0", "tc_ingress@eth0"), ("eth0.100", "tc_ingress@eth0:100")] {
            assert_eq!(pin_name("tc_ingress", interface), pin);
            assert_eq!(read_name(pin), Some(("tc_ingress", interface.to_owned())));
        }
        for other in ["connect4", "connect4@eth0", "tc_ingress"] {
            assert_eq!(read_name(other), None, "{other}");
        }
    }
}
