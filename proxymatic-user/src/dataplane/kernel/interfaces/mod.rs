//! Hooks on network interfaces, for clients on other machines: put where they are wanted, and kept there while interfaces
//! come, go and change their names.
//!
//! A link of TC (tcx) or of XDP is pinned. A kernel without links of TC has a filter of clsact instead, which needs no pin
//! to outlive the agent, and is known by its name.

mod interface_map;
mod match_names;
mod netlink;
mod pinned_link;
mod reconcile;
mod remove;
mod rows;

pub use reconcile::Interfaces;

use std::{collections::BTreeSet, ops::RangeInclusive, path::Path};

use proxymatic_common::maps::{Conntrack, MapDef as _};

use self::pinned_link::pin_name;
pub(super) use self::{
    pinned_link::pinned,
    reconcile::{load, refuse},
    remove::remove_all,
    rows::rows,
};
use super::Pins;

/// The hooks of an interface, in the order in which they are put in place: what leads back comes first.
pub const PACKET_HOOKS: [&str; 3] = ["tc_egress", "tc_ingress", XDP_INGRESS];

/// The one that is not TC's.
const XDP_INGRESS: &str = "xdp_ingress";

/// How clients on other machines are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteClients {
    /// The interfaces that they may come by, by name; none where such clients are not served. One that is not there is
    /// served when it comes.
    pub names: BTreeSet<String>,
    /// Whether connections that are established are forwarded by XDP, in the driver.
    pub xdp: bool,
    /// From which ports of this host backends on other machines are talked to.
    pub snat_ports: RangeInclusive<u16>,
    /// How many connections of theirs fit.
    pub connections: u32,
}

impl Default for RemoteClients {
    fn default() -> Self {
        Self {
            names: BTreeSet::new(),
            xdp: false,
            // Above what Linux gives to sockets by default (32768 to 60999).
            snat_ports: 61_000..=64_999,
            connections: Conntrack::MAX / 2,
        }
    }
}

impl RemoteClients {
    /// Whether there are to be such clients.
    pub fn is_wanted(&self) -> bool {
        !self.names.is_empty()
    }

    /// The ports that no socket is to get: those that clients on other machines are served with, where there are any.
    pub fn reserved_ports(&self) -> impl Iterator<Item = u16> {
        self.is_wanted().then(|| self.snat_ports.clone()).into_iter().flatten()
    }

    fn hooks(&self) -> impl Iterator<Item = &'static str> {
        PACKET_HOOKS.into_iter().filter(|hook| self.xdp || *hook != XDP_INGRESS)
    }
}

/// What cannot be done with an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceWarning {
    /// Its name.
    pub interface: String,
    /// Why not, with the remedy.
    pub reason: String,
}

/// The number of a hook (`enum bpf_attach_type`).
const fn attach_type(hook: &str) -> u32 {
    const BPF_XDP: u32 = 37;
    const BPF_TCX_INGRESS: u32 = 46;
    const BPF_TCX_EGRESS: u32 = 47;
    match hook.as_bytes() {
        b"tc_ingress" => BPF_TCX_INGRESS,
        b"tc_egress" => BPF_TCX_EGRESS,
        _ => BPF_XDP,
    }
}

/// The name of a filter: the hook, the interface by the name that the operator gave, and whose it is. All versions under
/// one folder have the same, so that each takes over from the one before it.
fn filter_name(hook: &str, interface: &str, bpffs: &Path) -> String {
    format!("{hook}@{interface} {}", bpffs.display())
}

/// The hook and the interface that a filter is named after, where it is one of ours.
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
    fn a_filter_is_known_by_its_name_and_another_agents_is_not_ours() {
        let bpffs = Path::new("/sys/fs/bpf/proxymatic");
        let name = filter_name("tc_ingress", "eth0.7", bpffs);
        assert_eq!(read_filter_name(&name, bpffs), Some(("tc_ingress", "eth0.7".into())));
        assert_eq!(read_filter_name(&name, Path::new("/sys/fs/bpf/other")), None);
        for other in ["cil_from_netdev", "tc_ingress", "xdp_ingress@eth0 /sys/fs/bpf/proxymatic"] {
            assert_eq!(read_filter_name(other, bpffs), None, "{other}");
        }
    }

    #[test]
    fn xdp_is_only_wanted_where_it_is_asked_for() {
        let hooks = |xdp| RemoteClients { xdp, ..RemoteClients::default() }.hooks().collect::<Vec<_>>();
        assert_eq!(hooks(false), ["tc_egress", "tc_ingress"]);
        assert_eq!(hooks(true), PACKET_HOOKS);
    }
}
