//! Which interface is meant by a name. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};

/// A network interface of this host, as the kernel shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Device {
    /// Its number, which stays while it is there, whatever it is called.
    pub(super) index: u32,
    /// Its name now.
    pub(super) name: String,
    /// Its other names (`ip link property add dev NAME altname OTHER`).
    pub(super) others: Vec<String>,
    /// The kernel's id of the XDP program on it.
    pub(super) xdp: Option<u32>,
    /// Bytes of a packet that it takes, without the link's header.
    pub(super) mtu: u32,
    /// Whether its packets begin with an Ethernet header.
    pub(super) ethernet: bool,
    /// What kind it is, where it is a virtual one.
    pub(super) kind: Kind,
    /// The number of the one that it is a port of.
    pub(super) master: Option<u32>,
    /// The first address of each family that this host has there, as far as others can send to it.
    pub(super) v4: Option<Ipv4Addr>,
    pub(super) v6: Option<Ipv6Addr>,
}

/// The kinds of interfaces that matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// A bridge.
    Bridge,
    /// The near end of a container or of a virtual machine: a veth, or a tap.
    Near,
    /// Whatever else.
    #[default]
    Other,
}

impl Device {
    fn is_valid_name(&self, name: &str) -> bool {
        self.name == name || self.others.iter().any(|other| other == name)
    }
}

/// The interface that each name means: the one that is called so; where none is, the one that was when our programs came
/// to it (`stands`), as long as it is there: it was renamed, and who dials it should not notice. Names that mean none are
/// not in the answer.
pub(super) fn resolve<'a>(
    wanted: &BTreeSet<String>,
    devices: &'a [Device],
    stands: &BTreeMap<String, u32>,
) -> BTreeMap<String, &'a Device> {
    let called = |name: &String| devices.iter().find(|device| device.is_valid_name(name));
    let mut found: BTreeMap<_, _> = wanted.iter().filter_map(|name| Some((name.clone(), called(name)?))).collect();
    for name in wanted {
        let renamed = stands.get(name).and_then(|index| devices.iter().find(|device| device.index == *index));
        if let Some(device) = renamed.filter(|device| found.values().all(|other| other.index != device.index)) {
            found.entry(name.clone()).or_insert(device);
        }
    }
    found
}

/// The bridges behind which there are only containers and virtual machines of this host, as docker0: what they send leaves
/// by way of this host. One with any other port may have other machines behind it.
pub(super) fn bridges_of_containers(devices: &[Device]) -> impl Iterator<Item = &Device> {
    let ports = |bridge: u32| devices.iter().filter(move |port| port.master == Some(bridge));
    devices.iter().filter(move |it| it.kind == Kind::Bridge && ports(it.index).all(|port| port.kind == Kind::Near))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bridge_without_a_way_out_is_one_of_containers() {
        let bridge = |index| Device { kind: Kind::Bridge, ..device(index, "br") };
        let port = |index, master, kind| Device { kind, master: Some(master), ..device(index, "port") };
        let devices =
            [bridge(1), bridge(2), bridge(3), port(4, 2, Kind::Near), port(5, 3, Kind::Near), port(6, 3, Kind::Other)];
        assert_eq!(bridges_of_containers(&devices).map(|it| it.index).collect::<Vec<_>>(), [1, 2]);
    }

    fn device(index: u32, name: &str) -> Device {
        Device { index, name: name.into(), ..Device::default() }
    }

    /// Of names that are wanted, by devices and by where programs stand: the numbers that are meant.
    fn check(wanted: &[&str], devices: &[Device], stands: &[(&str, u32)]) -> Vec<(String, u32)> {
        let wanted = wanted.iter().map(|name| (*name).to_owned()).collect();
        let stands = stands.iter().map(|(name, index)| ((*name).to_owned(), *index)).collect();
        resolve(&wanted, devices, &stands).into_iter().map(|(name, device)| (name, device.index)).collect()
    }

    #[test]
    fn a_name_means_who_is_called_so_and_may_mean_nobody() {
        let devices = [device(1, "lo"), Device { others: vec!["uplink".into()], ..device(2, "eth0") }];
        assert_eq!(check(&["eth0", "eth1"], &devices, &[]), [("eth0".into(), 2)]);
        assert_eq!(check(&["uplink"], &devices, &[]), [("uplink".into(), 2)]);
    }

    #[test]
    fn an_interface_that_was_renamed_stays_meant_until_another_has_the_name() {
        assert_eq!(check(&["eth0"], &[device(2, "lan0")], &[("eth0", 2)]), [("eth0".into(), 2)]);
        let both = [device(2, "lan0"), device(3, "eth0")];
        assert_eq!(check(&["eth0"], &both, &[("eth0", 2)]), [("eth0".into(), 3)]);
    }

    #[test]
    fn an_interface_that_was_removed_is_not_meant_and_its_successor_is() {
        assert_eq!(check(&["eth0"], &[device(1, "lo")], &[("eth0", 2)]), []);
        assert_eq!(check(&["eth0"], &[device(9, "eth0")], &[("eth0", 2)]), [("eth0".into(), 9)]);
    }

    #[test]
    fn no_interface_is_meant_by_two_names() {
        assert_eq!(check(&["eth0", "lan0"], &[device(2, "lan0")], &[("eth0", 2)]), [("lan0".into(), 2)]);
    }
}
