//! The cluster's networks: bridges in a namespace of their own with veth pairs to the hosts, and cables between two.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::NetNs;

/// How hosts are joined. The n-th network of a lab, from 0, is 10.(77+n).0.0/24 and fd77::/64, fd78::/64 and so on; its
/// interface on a host is `labN`. There is no default route and no route outside.
#[derive(Debug, Clone)]
pub enum Network {
    /// A bridge with these hosts, by number.
    Switch(Vec<u8>),
    /// One veth pair between two hosts, without the cost of a bridge.
    Cable([u8; 2]),
}

impl Network {
    /// The hosts on it.
    #[must_use]
    pub fn hosts(&self) -> &[u8] {
        match self {
            Self::Switch(hosts) => hosts,
            Self::Cable(hosts) => hosts,
        }
    }
}

/// The namespace of the bridges.
#[derive(Debug)]
pub struct Switch {
    net: NetNs,
}

impl Switch {
    /// Makes a new namespace of this name.
    pub fn create(name: &str) -> Result<Self> {
        Ok(Self { net: NetNs::create(name)? })
    }

    /// Makes the bridge of a network.
    pub fn bridge(&self, network: u8) -> Result<()> {
        let bridge = bridge(network);
        self.net.ip(&["link", "add", &bridge, "type", "bridge"])?;
        self.net.ip(&["link", "set", &bridge, "up"])
    }

    /// Plugs a host into the bridge of a network.
    pub fn join(&self, host: &NetNs, number: u8, network: u8) -> Result<()> {
        let (plug, port) = (plug(network, number), interface(network));
        // Always the same address, or others would keep sending to the interface that was there before.
        let card = format!("02:77:00:00:{network:02x}:{number:02x}");
        let pair =
            ["link", "add", &plug, "type", "veth", "peer", "name", &port, "address", &card, "netns", host.name()];
        self.net.ip(&pair)?;
        self.net.ip(&["link", "set", &plug, "master", &bridge(network), "up"])?;
        give_addresses(host, number, network)
    }

    /// Gives the bridge's end of a host's interface the properties of a network card: see [`like_a_card`].
    pub fn like_a_card(&self, network: u8, number: u8) -> Result<()> {
        like_a_card(&self.net, &plug(network, number))
    }

    /// Runs a pinned XDP program on the bridge's end of a host's interface.
    pub fn runs_xdp(&self, network: u8, number: u8, pinned: &Path) -> Result<()> {
        let mut bpftool = self.net.command()?;
        bpftool.args(["bpftool", "net", "attach", "xdp", "pinned"]).arg(pinned);
        let said = bpftool.args(["dev", &plug(network, number), "overwrite"]).output().context("run bpftool")?;
        ensure!(said.status.success(), "bpftool net attach: {}", String::from_utf8_lossy(&said.stderr));
        Ok(())
    }

    /// Sets the MTU on the path to a host.
    pub fn mtu(&self, network: u8, number: u8, bytes: u16) -> Result<()> {
        self.net.ip(&["link", "set", &plug(network, number), "mtu", &bytes.to_string()])
    }
}

/// Joins two hosts directly.
pub fn cable(network: u8, [one, other]: [(u8, &NetNs); 2]) -> Result<()> {
    let port = interface(network);
    one.1.ip(&["link", "add", &port, "type", "veth", "peer", "name", &port, "netns", other.1.name()])?;
    give_addresses(one.1, one.0, network)?;
    give_addresses(other.1, other.0, network)
}

/// Gives a new interface its addresses, and sets it up.
pub fn give_addresses(host: &NetNs, number: u8, network: u8) -> Result<()> {
    let port = interface(network);
    host.ip(&["address", "add", &format!("{}/24", address_on(network, number)), "dev", &port])?;
    // Duplicate address detection would keep the address unusable for a second or two.
    host.ip(&["address", "add", &format!("{}/64", address6_on(network, number)), "dev", &port, "nodad"])?;
    host.ip(&["link", "set", &port, "up"])
}

/// Gives an end of a veth pair the properties of a network card that a native XDP program expects. An end without a
/// program accepts frames redirected into the other end only with GRO (veth_xdp_xmit of drivers/net/veth.c), and drops
/// them silently otherwise. Packets that it sends have complete checksums, which veths leave out, also in packets that
/// GRO has merged.
pub fn like_a_card(net: &NetNs, interface: &str) -> Result<()> {
    ethtool(net, interface, &["gro", "on", "tx", "off"])
}

/// Turns a driver feature on or off.
pub fn ethtool(net: &NetNs, interface: &str, features: &[&str]) -> Result<()> {
    let said = net.command()?.args(["ethtool", "-K", interface]).args(features).output().context("run ethtool")?;
    let warning = String::from_utf8_lossy(&said.stderr);
    ensure!(said.status.success(), "ethtool -K {interface} {}: {warning}", features.join(" "));
    Ok(())
}

/// The interface of a network on every host. Not `eth0`: a command that misses its namespace must not find an interface
/// with that name.
#[must_use]
pub fn interface(network: u8) -> String {
    format!("lab{network}")
}

/// The address of host `number` on the first network.
#[must_use]
pub fn host_address(number: u8) -> Ipv4Addr {
    address_on(0, number)
}

/// The IPv6 address of host `number` on the first network.
#[must_use]
pub fn host_address6(number: u8) -> Ipv6Addr {
    address6_on(0, number)
}

/// The address of host `number` on any network.
#[must_use]
pub fn address_on(network: u8, number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77 + network, 0, number)
}

/// The IPv6 address of host `number` on any network.
#[must_use]
pub fn address6_on(network: u8, number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77 + u16::from(network), 0, 0, 0, 0, 0, 0, number.into())
}

fn bridge(network: u8) -> String {
    format!("switch{network}")
}

/// The other end of a host's interface.
fn plug(network: u8, number: u8) -> String {
    format!("net{network}host{number}")
}
