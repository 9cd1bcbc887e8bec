//! Hooks on network interfaces, for remote clients: attaches them, also after interfaces come, go or change their
//! names.
//!
//! TC hooks (tcx) and XDP hooks are attached by pinned links. On a kernel without tcx, TC hooks are clsact filters:
//! these outlive the agent without a pin, and have a name by which they are found again.

mod interface_map;
mod match_names;
mod netlink;
mod pinned_link;
mod reconcile;
mod remove;
mod rows;

pub use reconcile::Interfaces;

use std::{collections::BTreeSet, ops::RangeInclusive, path::Path};

use aya_obj::generated::bpf_attach_type::{self, *};
use proxymatic_common::maps::{Conntrack, MapDef as _};

use self::pinned_link::{pin_name, pinned};
pub(super) use self::{
    reconcile::{load, refuse_foreign_xdp},
    remove::remove_all,
    rows::rows,
};
use super::{
    Pins,
    hook_names::{PACKET_HOOKS, XDP_INGRESS},
};

/// The settings for remote clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteClients {
    /// The names of the interfaces that serve remote clients; empty to serve none. An interface that does not exist
    /// yet is served once it does.
    pub names: BTreeSet<String>,
    /// Whether XDP in the driver forwards established connections.
    pub xdp: bool,
    /// The SNAT ports: the source ports of this host towards backends on other machines.
    pub snat_ports: RangeInclusive<u16>,
    /// How many connections the conntrack map holds.
    pub connections: u32,
}

impl Default for RemoteClients {
    fn default() -> Self {
        Self {
            names: BTreeSet::new(),
            xdp: false,
            // Above the ephemeral ports of Linux (32768 to 60999).
            snat_ports: 61_000..=64_999,
            connections: Conntrack::MAX / 2,
        }
    }
}

impl RemoteClients {
    /// Returns true if any interface serves remote clients.
    pub fn is_wanted(&self) -> bool {
        !self.names.is_empty()
    }

    /// The ports that sockets of this host must not use: the SNAT ports, if remote clients are served.
    pub fn reserved_ports(&self) -> impl Iterator<Item = u16> {
        self.is_wanted().then(|| self.snat_ports.clone()).into_iter().flatten()
    }

    fn hooks(&self) -> impl Iterator<Item = &'static str> {
        PACKET_HOOKS.into_iter().filter(|hook| self.xdp || *hook != XDP_INGRESS)
    }
}

/// A problem with an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceWarning {
    /// The name of the interface.
    pub interface: String,
    /// The reason, with the remedy.
    pub reason: String,
}

/// Returns the attach type of a hook.
const fn attach_type(hook: &str) -> bpf_attach_type {
    match hook.as_bytes() {
        b"tc_ingress" => BPF_TCX_INGRESS,
        b"tc_egress" => BPF_TCX_EGRESS,
        _ => BPF_XDP,
    }
}

/// The name of a clsact filter: the hook, the configured name of the interface and the folder of the pins. It is the
/// same in all map ABI versions, so that each takes over the filters of another.
fn filter_name(hook: &str, interface: &str, bpffs: &Path) -> String {
    format!("{hook}@{interface} {}", bpffs.display())
}

/// Returns the hook and the interface of a filter name; `None` if the filter is not one of ours.
fn read_filter_name(name: &str, bpffs: &Path) -> Option<(&'static str, String)> {
    let (named, owner) = name.split_once(' ')?;
    let (hook, interface) = named.split_once('@')?;
    let hook = PACKET_HOOKS.into_iter().find(|it| *it == hook && *it != XDP_INGRESS)?;
    (Path::new(owner) == bpffs).then(|| (hook, interface.to_owned()))
}

impl Pins {
    /// The pin of the link of a hook on an interface.
    pub(super) fn interface_link(&self, hook: &str, interface: &str) -> std::path::PathBuf {
        self.link(&pin_name(hook, interface))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_is_recognized_by_hook_interface_and_folder() {
        let bpffs = Path::new("/sys/fs/bpf/proxymatic");
        let name = filter_name("tc_ingress", "eth0.7", bpffs);
        assert_eq!(read_filter_name(&name, bpffs), Some(("tc_ingress", "eth0.7".into())));
        assert_eq!(read_filter_name(&name, Path::new("/sys/fs/bpf/other")), None);
        for other in ["cil_from_netdev", "tc_ingress", "xdp_ingress@eth0 /sys/fs/bpf/proxymatic"] {
            assert_eq!(read_filter_name(other, bpffs), None, "{other}");
        }
    }

    #[test]
    fn xdp_hook_is_only_attached_on_request() {
        let hooks = |xdp| RemoteClients { xdp, ..RemoteClients::default() }.hooks().collect::<Vec<_>>();
        assert_eq!(hooks(false), ["tc_egress", "tc_ingress"]);
        assert_eq!(hooks(true), PACKET_HOOKS);
    }
}
