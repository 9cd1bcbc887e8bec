//! Labs with remote clients: how their hosts are joined, and changes of the network while they run.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::Result;

use super::Lab;
use super::host::Host;
use crate::net::{Network, address_on, address6_on, cable, interface, like_a_card};

/// The host of the clients, in labs with remote clients.
pub const CLIENT: u8 = 4;
/// A router, in labs with a far backend.
pub const ROUTER: u8 = 5;
/// A backend behind that router.
pub const FAR: u8 = 6;

/// The place of remote clients, as seen from the host to whose service ports they connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arms {
    /// On the network of the backends: a forwarded packet leaves by the interface that it came in.
    One,
    /// On a network of their own, whose only route is through host 1.
    Two,
}

impl Arms {
    /// The network of the clients.
    #[must_use]
    pub fn outside(self) -> u8 {
        match self {
            Self::One => 0,
            Self::Two => 1,
        }
    }

    /// The address of host 1 for clients, in either family.
    #[must_use]
    pub fn service_addresses(self) -> [IpAddr; 2] {
        [address_on(self.outside(), 1).into(), address6_on(self.outside(), 1).into()]
    }

    /// The interfaces of host 1.
    #[must_use]
    pub fn interfaces(self) -> Vec<String> {
        (0..=self.outside()).map(interface).collect()
    }
}

impl Lab {
    /// Makes host 1, the backends' hosts 2 and 3, and the clients' host 4. With two arms a cable leads to the clients,
    /// and the hosts on both sides have a route to the other over host 1, which forwards nothing by itself.
    pub fn remote(arms: Arms) -> Result<Self> {
        match arms {
            Arms::One => Self::start(CLIENT),
            Arms::Two => {
                let lab = Self::joined(vec![Network::Switch(vec![1, 2, 3]), Network::Cable([1, CLIENT])])?;
                [2, 3].into_iter().try_for_each(|backend| lab.route(backend, 1, (0, 1)))?;
                lab.route(CLIENT, 0, (1, 1))?;
                Ok(lab)
            }
        }
    }

    /// Like [`Self::remote`] with two arms, and with a backend's host 6 behind a router, host 5.
    pub fn remote_with_router() -> Result<Self> {
        let switch = Network::Switch(vec![1, 2, 3, ROUTER]);
        let lab = Self::joined(vec![switch, Network::Cable([1, CLIENT]), Network::Cable([ROUTER, FAR])])?;
        for backend in [2, 3, ROUTER] {
            lab.route(backend, 1, (0, 1))?;
        }
        lab.route(CLIENT, 0, (1, 1))?;
        lab.route(1, 2, (0, ROUTER))?;
        lab.route(FAR, 0, (2, ROUTER))?;
        lab.route(FAR, 1, (2, ROUTER))?;
        lab.host(ROUTER).forwards()?;
        Ok(lab)
    }

    /// Adds a host's route to a network, over the network and the host that are named last.
    pub fn route(&self, host: u8, to: u8, (over, via): (u8, u8)) -> Result<()> {
        let net = self.host(host).net();
        net.ip(&["route", "add", &format!("{}/24", address_on(to, 0)), "via", &address_on(over, via).to_string()])?;
        net.ip(&["route", "add", &format!("{}/64", address6_on(to, 0)), "via", &address6_on(over, via).to_string()])
    }

    /// Puts a host on a switch again, after its interface was deleted.
    pub fn join(&self, host: u8, network: u8) -> Result<()> {
        self.switch.join(self.host(host).net(), host, network)
    }

    /// Sets the MTU between a host and a switch, at both ends.
    pub fn mtu(&self, host: u8, network: u8, bytes: u16) -> Result<()> {
        self.switch.mtu(network, host, bytes)?;
        self.host(host).mtu(network, bytes)
    }

    /// Gives all interfaces the properties of network cards that a native XDP program expects.
    pub fn like_cards(&self) -> Result<()> {
        for (nth, network) in (0..).zip(&self.networks) {
            for number in network.hosts() {
                if matches!(network, Network::Switch(_)) {
                    self.switch.like_a_card(nth, *number)?;
                }
                like_a_card(self.host(*number).net(), &interface(nth))?;
            }
        }
        Ok(())
    }

    /// Runs a pinned program at the switch, on the peer of a host's interface. GRO does not wake the peer for frames
    /// that return by XDP_TX: veth_xdp_flush of drivers/net/veth.c wakes it only if it has a program, and until then
    /// the frames stay queued.
    pub fn takes_returns(&self, host: u8, network: u8, pinned: &Path) -> Result<()> {
        self.switch.runs_xdp(network, host, pinned)
    }

    pub(super) fn lay(&self) -> Result<()> {
        for (nth, network) in (0..).zip(&self.networks) {
            match network {
                Network::Switch(hosts) => {
                    self.switch.bridge(nth)?;
                    hosts.iter().try_for_each(|number| self.join(*number, nth))?;
                }
                Network::Cable(ends) => cable(nth, ends.map(|number| (number, self.host(number).net())))?,
            }
        }
        Ok(())
    }
}

impl Host {
    /// Makes this host forward packets for others, as hosts with Docker do.
    pub fn forwards(&self) -> Result<()> {
        self.net().sysctl("net/ipv4/ip_forward", "1")?;
        self.net().sysctl("net/ipv6/conf/all/forwarding", "1")
    }

    /// Sets the MTU of an interface.
    pub fn mtu(&self, network: u8, bytes: u16) -> Result<()> {
        self.net().ip(&["link", "set", &interface(network), "mtu", &bytes.to_string()])
    }

    /// Its addresses on a network, in either family.
    #[must_use]
    pub fn addresses_on(&self, network: u8) -> [IpAddr; 2] {
        [address_on(network, self.number()).into(), address6_on(network, self.number()).into()]
    }

    /// Its addresses on a network with a port, in either family.
    #[must_use]
    pub fn places_on(&self, network: u8, port: u16) -> [SocketAddr; 2] {
        self.addresses_on(network).map(|address| SocketAddr::new(address, port))
    }
}
