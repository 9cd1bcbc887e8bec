//! The map `INTERFACES`: where hooks may forward packets to, because replies arriving there are intercepted.

use std::collections::BTreeMap;

use aya::maps::{HashMap, MapData};
use proxymatic_common::{Address, Interface, InterfaceKind, maps::Interfaces as MapSpec};

use super::{
    super::{
        Pins,
        adopt::all_entries,
        maps::{hash, ignore_missing, map_name},
    },
    match_names::{Device, bridges_of_containers},
};
use crate::dataplane::Error;

/// The map `INTERFACES`.
#[derive(Debug)]
pub(super) struct InterfaceMap(HashMap<MapData, u32, Interface>);

impl InterfaceMap {
    pub(super) fn open(pins: &Pins) -> Result<Self, Error> {
        hash::<MapSpec, _, _>(pins).map(Self)
    }

    /// Returns the indexes of the interfaces with our hooks, as last written.
    pub(super) fn attached(&self) -> Result<Vec<u32>, Error> {
        let rows = all_entries(map_name::<MapSpec>(), &self.0)?;
        let ours = |kind| [InterfaceKind::ATTACHED, InterfaceKind::ACCELERATED].contains(&kind);
        Ok(rows.into_iter().filter(|(_, it)| ours(it.kind)).map(|(index, _)| index).collect())
    }

    /// Writes exactly these rows: interfaces with our hooks, each with or without XDP, and bridges of containers.
    pub(super) fn write(&mut self, attached: &[(&Device, bool)], devices: &[Device]) -> Result<(), Error> {
        let known: BTreeMap<u32, Interface> = all_entries(map_name::<MapSpec>(), &self.0)?.into_iter().collect();
        let wanted = wanted(attached, devices);
        let failed = |error: aya::maps::MapError| Error::kernel("write INTERFACES", &error);
        for (index, row) in &wanted {
            if known.get(index) != Some(row) {
                self.0.insert(index, row, 0).map_err(failed)?;
            }
        }
        for index in known.keys().filter(|index| !wanted.contains_key(*index)) {
            ignore_missing(self.0.remove(index)).map_err(failed)?;
        }
        Ok(())
    }
}

fn wanted(attached: &[(&Device, bool)], devices: &[Device]) -> BTreeMap<u32, Interface> {
    let bridges = bridges_of_containers(devices).map(|device| (device.index, row(device, InterfaceKind::CONTAINERS)));
    let kind = |xdp| if xdp { InterfaceKind::ACCELERATED } else { InterfaceKind::ATTACHED };
    let attached = attached.iter().map(|(device, xdp)| (device.index, row(device, kind(*xdp))));
    // An interface in both lists has our hooks, so the later row counts.
    bridges.chain(attached).collect()
}

fn row(device: &Device, kind: InterfaceKind) -> Interface {
    let address = |ip: Option<std::net::IpAddr>| ip.map_or(Address::ZERO, Address::from);
    Interface { kind, mtu: device.mtu, v4: address(device.v4.map(Into::into)), v6: address(device.v6.map(Into::into)) }
}

#[cfg(test)]
mod tests {
    use super::{super::match_names::Kind, *};

    #[test]
    fn only_hooked_interfaces_and_container_bridges_have_rows() {
        let eth0 = Device { index: 2, mtu: 1500, v4: Some([10, 0, 0, 1].into()), ..Device::default() };
        let docker0 = Device { index: 3, kind: Kind::Bridge, mtu: 1400, ..Device::default() };
        let eth1 = Device { index: 4, ..Device::default() };
        let devices = [eth0.clone(), docker0.clone(), eth1];
        let rows = wanted(&[(&eth0, false)], &devices);
        assert_eq!(rows.keys().copied().collect::<Vec<_>>(), [2, 3]);
        let v4 = Address::from(std::net::IpAddr::from([10, 0, 0, 1]));
        assert_eq!(rows[&2], Interface { kind: InterfaceKind::ATTACHED, mtu: 1500, v4, v6: Address::ZERO });
        assert_eq!((rows[&3].kind, rows[&3].mtu, rows[&3].v4), (InterfaceKind::CONTAINERS, 1400, Address::ZERO));
        assert_eq!(wanted(&[(&docker0, false)], &devices)[&3].kind, InterfaceKind::ATTACHED);
        assert_eq!(wanted(&[(&eth0, true)], &devices)[&2].kind, InterfaceKind::ACCELERATED);
    }
}
