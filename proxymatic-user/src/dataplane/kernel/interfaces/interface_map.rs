//! `INTERFACES`: where hooks may send packets, since what comes back from there is met.

use std::collections::BTreeMap;

use aya::maps::{HashMap, MapData};
use proxymatic_common::{Address, Interface, InterfaceKind, maps::Interfaces as MapSpec};

use super::{
    super::{
        Pins,
        adopt::all,
        apply::absent_is_done,
        maps::{hash, map_name},
    },
    match_names::{Device, bridges_of_containers},
};
use crate::dataplane::Error;

/// The map.
#[derive(Debug)]
pub(super) struct InterfaceMap(HashMap<MapData, u32, Interface>);

impl InterfaceMap {
    pub(super) fn open(pins: &Pins) -> Result<Self, Error> {
        hash::<MapSpec, _, _>(pins).map(Self)
    }

    /// The numbers of the interfaces that our hooks are on, as was last written.
    pub(super) fn attached(&self) -> Result<Vec<u32>, Error> {
        let marks = all(map_name::<MapSpec>(), &self.0)?;
        let ours = |kind| [InterfaceKind::ATTACHED, InterfaceKind::ACCELERATED].contains(&kind);
        Ok(marks.into_iter().filter(|(_, it)| ours(it.kind)).map(|(index, _)| index).collect())
    }

    /// Has it say exactly this: our hooks are on these interfaces, that of XDP too or not, of all there are.
    pub(super) fn put(&mut self, attached: &[(&Device, bool)], devices: &[Device]) -> Result<(), Error> {
        let known: BTreeMap<u32, Interface> = all(map_name::<MapSpec>(), &self.0)?.into_iter().collect();
        let wanted = wanted(attached, devices);
        let failed = |error: aya::maps::MapError| Error::kernel("write INTERFACES", &error);
        for (index, mark) in &wanted {
            if known.get(index) != Some(mark) {
                self.0.insert(index, mark, 0).map_err(failed)?;
            }
        }
        for index in known.keys().filter(|index| !wanted.contains_key(*index)) {
            absent_is_done(self.0.remove(index)).map_err(failed)?;
        }
        Ok(())
    }
}

fn wanted(attached: &[(&Device, bool)], devices: &[Device]) -> BTreeMap<u32, Interface> {
    let bridges = bridges_of_containers(devices).map(|device| (device.index, mark(device, InterfaceKind::CONTAINERS)));
    let kind = |xdp| if xdp { InterfaceKind::ACCELERATED } else { InterfaceKind::ATTACHED };
    let attached = attached.iter().map(|(device, xdp)| (device.index, mark(device, kind(*xdp))));
    // One that is both has our hooks.
    bridges.chain(attached).collect()
}

fn mark(device: &Device, kind: InterfaceKind) -> Interface {
    let address = |ip: Option<std::net::IpAddr>| ip.map_or(Address::ZERO, Address::from);
    Interface { kind, mtu: device.mtu, v4: address(device.v4.map(Into::into)), v6: address(device.v6.map(Into::into)) }
}

#[cfg(test)]
mod tests {
    use super::{super::match_names::Kind, *};

    #[test]
    fn what_hooks_are_on_and_bridges_of_containers_are_marked_and_nothing_else() {
        let eth0 = Device { index: 2, mtu: 1500, v4: Some([10, 0, 0, 1].into()), ..Device::default() };
        let docker0 = Device { index: 3, kind: Kind::Bridge, mtu: 1400, ..Device::default() };
        let eth1 = Device { index: 4, ..Device::default() };
        let devices = [eth0.clone(), docker0.clone(), eth1];
        let marks = wanted(&[(&eth0, false)], &devices);
        assert_eq!(marks.keys().copied().collect::<Vec<_>>(), [2, 3]);
        let v4 = Address::from(std::net::IpAddr::from([10, 0, 0, 1]));
        assert_eq!(marks[&2], Interface { kind: InterfaceKind::ATTACHED, mtu: 1500, v4, v6: Address::ZERO });
        assert_eq!((marks[&3].kind, marks[&3].mtu, marks[&3].v4), (InterfaceKind::CONTAINERS, 1400, Address::ZERO));
        assert_eq!(wanted(&[(&docker0, false)], &devices)[&3].kind, InterfaceKind::ATTACHED);
        assert_eq!(wanted(&[(&eth0, true)], &devices)[&2].kind, InterfaceKind::ACCELERATED);
    }
}
