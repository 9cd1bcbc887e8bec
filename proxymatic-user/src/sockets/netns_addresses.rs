//! The addresses of network namespaces, published for the networks of allow lists. A thread of its own reads them, so that
//! a long sweep of sockets delays no client.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    sync::mpsc::{Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use nix::ifaddrs::getifaddrs;
use proxymatic_common::{Address, NetnsAddresses};

use super::namespaces::{self, NetnsGuard};
use crate::{
    addresses::may_have_services,
    dataplane::{
        Error,
        kernel::{NetnsMap, Pins, netns_cookie},
    },
    privileges::{self, EnabledFeatures, Thread},
};

/// The shortest time between two readings.
const REST: Duration = Duration::from_millis(50);
/// After a reading, the next one waits for this many times its duration.
const REST_FACTOR: u32 = 10;
/// Addresses that only a default route leads to. Nothing is sent to them.
const FAR: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(203, 0, 113, 1), Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1));

/// Publishes the addresses of network namespaces.
#[derive(Debug)]
pub struct NetnsPublisher {
    map: NetnsMap,
    /// What the map holds.
    published: BTreeMap<u64, NetnsAddresses>,
    /// The last problem that was logged.
    problem: Option<String>,
}

impl NetnsPublisher {
    /// Opens the pinned map, and publishes the addresses of the agent's own namespace: services with allow lists may be
    /// published next.
    ///
    /// # Errors
    /// Fails if the map is not pinned, or cannot be read.
    pub fn open(pins: &Pins) -> Result<Self, Error> {
        let map = NetnsMap::open(pins)?;
        let published = map.rows()?;
        let mut publisher = Self { map, published, problem: None };
        if let Ok((cookie, addresses)) = read_own() {
            publisher.write(cookie, addresses);
        }
        Ok(publisher)
    }

    /// Starts a thread that reads all namespaces after each message, until the channel closes.
    ///
    /// # Errors
    /// Fails if the thread cannot be started.
    pub fn start(mut self, uses: EnabledFeatures, orders: Receiver<()>) -> io::Result<()> {
        let work = move || {
            privileges::drop_to(Thread::Sockets, uses).expect("a thread may drop capabilities");
            let mut free_at = Instant::now();
            while wait(&orders, free_at) {
                let began = Instant::now();
                self.publish();
                free_at = Instant::now() + REST.max(began.elapsed() * REST_FACTOR);
            }
        };
        thread::Builder::new().name(Thread::Sockets.name().into()).spawn(work).map(drop)
    }

    /// Reads all namespaces and publishes the differences.
    fn publish(&mut self) {
        let found = match read_all() {
            Ok(found) => found,
            Err(error) => {
                return self
                    .report(format!("allow lists admit no program by its address: {error}; name cgroups in them"));
            }
        };
        let gone: Vec<_> = self.published.keys().filter(|cookie| !found.contains_key(cookie)).copied().collect();
        for cookie in gone {
            self.map.remove(cookie);
            self.published.remove(&cookie);
        }
        for (cookie, addresses) in found {
            self.write(cookie, addresses);
        }
    }

    fn write(&mut self, cookie: u64, addresses: NetnsAddresses) {
        if self.published.get(&cookie) == Some(&addresses) {
            return;
        }
        match self.map.insert(cookie, addresses) {
            Ok(()) => drop(self.published.insert(cookie, addresses)),
            Err(error) => {
                self.report(format!("{error}; allow lists refuse the programs of a network namespace by their address"))
            }
        }
    }

    /// Logs a problem, once in a row.
    fn report(&mut self, problem: String) {
        if self.problem.as_ref() != Some(&problem) {
            tracing::warn!("{problem}");
            self.problem = Some(problem);
        }
    }
}

/// Waits for an order, and until a time. Returns false if the channel is closed.
fn wait(orders: &Receiver<()>, free_at: Instant) -> bool {
    if orders.recv().is_err() {
        return false;
    }
    loop {
        match orders.recv_timeout(free_at.saturating_duration_since(Instant::now())) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

/// Returns the addresses of all namespaces that have a process, by cookie. Returns to the first namespace.
fn read_all() -> io::Result<BTreeMap<u64, NetnsAddresses>> {
    let (own, addresses) = read_own()?;
    let hosts: Vec<_> = listed().collect();
    let mut found = BTreeMap::new();
    let home = NetnsGuard::here()?;
    for namespace in namespaces::all()?.values() {
        // Fails if the process in that namespace has ended, or is hidden from this one.
        if let Ok(Some((cookie, addresses))) = home.run_in(namespace, read_own) {
            let addresses = without(addresses, &hosts);
            if (addresses.v4, addresses.v6) != (Address::ZERO, Address::ZERO) {
                found.insert(cookie, addresses);
            }
        }
    }
    found.insert(own, addresses);
    Ok(found)
}

/// Leaves out addresses of the host, which a program that may configure its namespace can give itself.
fn without(addresses: NetnsAddresses, hosts: &[IpAddr]) -> NetnsAddresses {
    let other = |address: Address| if hosts.contains(&address.into()) { Address::ZERO } else { address };
    NetnsAddresses { v4: other(addresses.v4), v6: other(addresses.v6) }
}

/// Returns the cookie and the addresses of the namespace that this thread is in.
fn read_own() -> io::Result<(u64, NetnsAddresses)> {
    let cookie = netns_cookie().map_err(|_| {
        io::Error::other(
            "this kernel does not show the network namespace of a process (SO_NETNS_COOKIE came with 5.14)",
        )
    })?;
    let (v4, v6) = FAR;
    let source = |from: IpAddr, to: IpAddr| {
        let of_route = source_address(from, to).filter(|address| may_have_services(*address));
        of_route
            .or_else(|| listed().find(|address| address.is_ipv4() == to.is_ipv4()))
            .map_or(Address::ZERO, Address::from)
    };
    let v4 = source(Ipv4Addr::UNSPECIFIED.into(), v4.into());
    let v6 = source(Ipv6Addr::UNSPECIFIED.into(), v6.into());
    Ok((cookie, NetnsAddresses { v4, v6 }))
}

/// Returns the source address that the kernel selects for a destination; `None` if it has no route.
fn source_address(from: IpAddr, to: IpAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind((from, 0)).ok()?;
    socket.connect((to, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Returns the addresses of this namespace at which other machines can be reached, in the order of the interfaces.
fn listed() -> impl Iterator<Item = IpAddr> {
    let by_interface = getifaddrs().into_iter().flatten().filter_map(|interface| {
        let address = interface.address?;
        let four = address.as_sockaddr_in().map(|four| IpAddr::V4(four.ip()));
        four.or_else(|| address.as_sockaddr_in6().map(|six| IpAddr::V6(six.ip())))
    });
    by_interface.filter(|address| may_have_services(*address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_host_are_left_out_of_other_namespaces() {
        let at = |v4: &str, v6: &str| NetnsAddresses {
            v4: v4.parse::<IpAddr>().unwrap().into(),
            v6: v6.parse::<IpAddr>().unwrap().into(),
        };
        let hosts = ["10.0.0.1", "fd00::1"].map(|text| text.parse().unwrap());
        assert_eq!(without(at("172.17.0.2", "fd00::2"), &hosts), at("172.17.0.2", "fd00::2"));
        assert_eq!(
            without(at("10.0.0.1", "fd00::2"), &hosts),
            NetnsAddresses { v4: Address::ZERO, ..at("::", "fd00::2") }
        );
        assert_eq!(without(at("172.17.0.2", "fd00::1"), &hosts).v6, Address::ZERO);
    }

    #[test]
    fn orders_during_the_rest_are_carried_out_once() {
        let (sender, orders) = std::sync::mpsc::channel();
        (0..3).for_each(|_| sender.send(()).unwrap());
        assert!(wait(&orders, Instant::now()));
        assert!(orders.try_recv().is_err());
        drop(sender);
        assert!(!wait(&orders, Instant::now()));
    }
}
