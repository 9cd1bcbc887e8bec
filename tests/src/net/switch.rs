//! One bridge in a namespace of its own, and veth pairs from it to the hosts: the cluster's network.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use super::NetNs;

const BRIDGE: &str = "switch0";
/// Not `eth0`: a command that misses its namespace must not find an interface of that name.
const PORT: &str = "lab0";

/// The network that joins the hosts: 10.77.0.0/24 and fd77::/64, no default route, nothing leads outside.
#[derive(Debug)]
pub struct Switch {
    net: NetNs,
}

impl Switch {
    /// Makes the bridge, in a new namespace of this name.
    pub fn create(name: &str) -> Result<Self> {
        let net = NetNs::create(name)?;
        net.ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        net.ip(&["link", "set", BRIDGE, "up"])?;
        Ok(Self { net })
    }

    /// Joins a namespace as host `number` and returns its IPv4 address there.
    pub fn join(&self, host: &NetNs, number: u8) -> Result<Ipv4Addr> {
        let plug = format!("host{number}");
        let pair = ["link", "add", &plug, "type", "veth", "peer", "name", PORT, "netns", host.name()];
        self.net.ip(&pair)?;
        self.net.ip(&["link", "set", &plug, "master", BRIDGE, "up"])?;
        host.ip(&["address", "add", &format!("{}/24", host_address(number)), "dev", PORT])?;
        // Duplicate address detection would keep the address unusable for a second or two.
        host.ip(&["address", "add", &format!("{}/64", host_address6(number)), "dev", PORT, "nodad"])?;
        host.ip(&["link", "set", PORT, "up"])?;
        Ok(host_address(number))
    }
}

/// The address of host `number`.
#[must_use]
pub fn host_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}

/// The IPv6 address of host `number`.
#[must_use]
pub fn host_address6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into())
}
