//! Resolves configured interface names to interfaces. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};

/// A network interface of this host, as the kernel shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Device {
    /// Its index, which stays the same when it is renamed.
    pub(super) index: u32,
    /// Its present name.
    pub(super) name: String,
    /// Its alternative names (`ip link property add dev NAME altname OTHER`).
    pub(super) others: Vec<String>,
    /// The kernel's id of its XDP program.
    pub(super) xdp: Option<u32>,
    /// Its MTU in bytes, without the header of the link.
    pub(super) mtu: u32,
    /// Whether it is an Ethernet interface.
    pub(super) ethernet: bool,
    /// Its kind, if it is virtual.
    pub(super) kind: Kind,
    /// The index of the bridge, bond or similar that it is a port of.
    pub(super) master: Option<u32>,
    /// Its first address of each family that other machines can reach.
    pub(super) v4: Option<Ipv4Addr>,
    pub(super) v6: Option<Ipv6Addr>,
}

/// The kinds of interfaces that make a difference here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// A bridge.
    Bridge,
    /// The host's end of a container's veth pair, or the tap of a virtual machine.
    VirtualPort,
    /// Any other interface.
    #[default]
    Other,
}

impl Device {
    fn is_valid_name(&self, name: &str) -> bool {
        self.name == name || self.others.iter().any(|other| other == name)
    }
}

/// Resolves each name to the interface that has it. If none has it, the name still means the interface that had it
/// when hooks were attached (`interface_of`), as that was renamed. Names without an interface are left out.
pub(super) fn resolve<'a>(
    wanted: &BTreeSet<String>,
    devices: &'a [Device],
    interface_of: &BTreeMap<String, u32>,
) -> BTreeMap<String, &'a Device> {
    let called = |name: &String| devices.iter().find(|device| device.is_valid_name(name));
    let mut found: BTreeMap<_, _> = wanted.iter().filter_map(|name| Some((name.clone(), called(name)?))).collect();
    for name in wanted {
        let renamed = interface_of.get(name).and_then(|index| devices.iter().find(|device| device.index == *index));
        if let Some(device) = renamed.filter(|device| found.values().all(|other| other.index != device.index)) {
            found.entry(name.clone()).or_insert(device);
        }
    }
    found
}

/// Returns the bridges that have only containers and virtual machines of this host as ports, such as docker0: their
/// traffic leaves through this host. A bridge with any other port may reach other machines.
pub(super) fn bridges_of_containers(devices: &[Device]) -> impl Iterator<Item = &Device> {
    let ports = |bridge: u32| devices.iter().filter(move |port| port.master == Some(bridge));
    devices
        .iter()
        .filter(move |it| it.kind == Kind::Bridge && ports(it.index).all(|port| port.kind == Kind::VirtualPort))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridge_with_another_port_is_no_container_bridge() {
        let bridge = |index| Device { kind: Kind::Bridge, ..device(index, "br") };
        let port = |index, master, kind| Device { kind, master: Some(master), ..device(index, "port") };
        let devices = [
            bridge(1),
            bridge(2),
            bridge(3),
            port(4, 2, Kind::VirtualPort),
            port(5, 3, Kind::VirtualPort),
            port(6, 3, Kind::Other),
        ];
        assert_eq!(bridges_of_containers(&devices).map(|it| it.index).collect::<Vec<_>>(), [1, 2]);
    }

    fn device(index: u32, name: &str) -> Device {
        Device { index, name: name.into(), ..Device::default() }
    }

    /// Resolves names and returns the indexes.
    fn check(wanted: &[&str], devices: &[Device], interface_of: &[(&str, u32)]) -> Vec<(String, u32)> {
        let wanted = wanted.iter().map(|name| (*name).to_owned()).collect();
        let interface_of = interface_of.iter().map(|(name, index)| ((*name).to_owned(), *index)).collect();
        resolve(&wanted, devices, &interface_of).into_iter().map(|(name, device)| (name, device.index)).collect()
    }

    #[test]
    fn name_resolves_to_the_interface_that_has_it_or_to_none() {
        let devices = [device(1, "lo"), Device { others: vec!["uplink".into()], ..device(2, "eth0") }];
        assert_eq!(check(&["eth0", "eth1"], &devices, &[]), [("eth0".into(), 2)]);
        assert_eq!(check(&["uplink"], &devices, &[]), [("uplink".into(), 2)]);
    }

    #[test]
    fn renamed_interface_keeps_its_name_until_another_takes_it() {
        assert_eq!(check(&["eth0"], &[device(2, "lan0")], &[("eth0", 2)]), [("eth0".into(), 2)]);
        let both = [device(2, "lan0"), device(3, "eth0")];
        assert_eq!(check(&["eth0"], &both, &[("eth0", 2)]), [("eth0".into(), 3)]);
    }

    #[test]
    fn removed_interface_is_replaced_by_the_next_of_that_name() {
        assert_eq!(check(&["eth0"], &[device(1, "lo")], &[("eth0", 2)]), []);
        assert_eq!(check(&["eth0"], &[device(9, "eth0")], &[("eth0", 2)]), [("eth0".into(), 9)]);
    }

    #[test]
    fn two_names_never_resolve_to_one_interface() {
        assert_eq!(check(&["eth0", "lan0"], &[device(2, "lan0")], &[("eth0", 2)]), [("lan0".into(), 2)]);
    }
}
