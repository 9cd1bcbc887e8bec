//! The addresses of this host, kept by netlink: one that comes or goes is known as soon as the kernel knows it.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use rtnetlink::{
    Handle, MulticastGroup, new_connection, new_multicast_connection,
    packet_route::address::{AddressAttribute, AddressMessage},
};
use tokio::{sync::mpsc, time::timeout};

/// The kernel answers at once, or something is badly wrong.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait after something went wrong.
const AGAIN: Duration = Duration::from_secs(1);

/// Why the addresses cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[from] std::io::Error),
    /// The kernel said no.
    #[error("cannot read the addresses of this host: {0}")]
    Netlink(#[from] rtnetlink::Error),
    /// The kernel said nothing.
    #[error("the kernel has not given the addresses of this host within {} s", PATIENCE.as_secs())]
    Silent,
    /// The kernel tells nothing more.
    #[error("the netlink socket was closed")]
    Closed,
}

/// All addresses of this network namespace, of both families, but those that the hooks know by their bits (loopback) and
/// link-local ones of IPv6, which mean something only together with an interface.
///
/// # Errors
/// The kernel does not say.
pub async fn read() -> Result<BTreeSet<IpAddr>, Error> {
    let (connection, handle, _) = new_connection()?;
    let connection = tokio::spawn(connection);
    let addresses = all(&handle).await;
    connection.abort();
    addresses
}

/// Sends all addresses at once, and again whenever they have changed, until nobody listens.
pub async fn follow(changed: mpsc::Sender<BTreeSet<IpAddr>>) {
    while !changed.is_closed() {
        match listen(&changed).await {
            Ok(()) => return,
            // The last ones stay.
            Err(error) => tracing::warn!("{error}; trying again in {} s", AGAIN.as_secs()),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Listens first and reads then: what changes in between is told.
async fn listen(changed: &mpsc::Sender<BTreeSet<IpAddr>>) -> Result<(), Error> {
    let groups = [MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let (connection, handle, mut told) = new_multicast_connection(&groups)?;
    // Ends with the handle.
    tokio::spawn(connection);
    let mut last = None;
    loop {
        let now = all(&handle).await?;
        if last.as_ref() != Some(&now) {
            if changed.send(now.clone()).await.is_err() {
                return Ok(());
            }
            last = Some(now);
        }
        // What changed is not looked at, so that nothing is lost where the kernel had no room to say all (ENOBUFS).
        tokio::select! {
            one = told.next() => one.ok_or(Error::Closed)?,
            () = changed.closed() => return Ok(()),
        };
        while let Some(more) = told.next().now_or_never() {
            more.ok_or(Error::Closed)?;
        }
    }
}

async fn all(handle: &Handle) -> Result<BTreeSet<IpAddr>, Error> {
    let messages = handle.address().get().execute().try_collect::<Vec<_>>();
    let messages = timeout(PATIENCE, messages).await.map_err(|_| Error::Silent)??;
    Ok(messages.iter().filter_map(reachable).collect())
}

/// The host's end of an address: on a point-to-point link the other attribute is the far end.
fn own(message: &AddressMessage) -> Option<IpAddr> {
    let find = |of: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(of);
    let local = find(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        find(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

/// The host's end of an address, where others can send to it.
pub(crate) fn reachable(message: &AddressMessage) -> Option<IpAddr> {
    own(message).filter(|address| dialled(*address))
}

/// Whether programs may dial services on an address.
fn dialled(address: IpAddr) -> bool {
    let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    !address.is_loopback() && !address.is_unspecified() && !link_local
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(attributes: Vec<AddressAttribute>) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.attributes = attributes;
        message
    }

    #[test]
    fn of_a_point_to_point_link_the_hosts_end_is_taken() {
        let (here, there) = (IpAddr::from([10, 8, 0, 1]), IpAddr::from([10, 8, 0, 2]));
        let both = message(vec![AddressAttribute::Address(there), AddressAttribute::Local(here)]);
        assert_eq!(own(&both), Some(here));
        assert_eq!(own(&message(vec![AddressAttribute::Address(there)])), Some(there));
        assert_eq!(own(&message(vec![])), None);
    }

    #[test]
    fn loopback_and_link_local_addresses_are_left_out() {
        for left in ["127.0.0.1", "127.8.0.1", "::1", "fe80::1", "febf::1", "::", "0.0.0.0"] {
            assert!(!dialled(left.parse().unwrap()), "{left}");
        }
        for kept in ["10.0.0.1", "172.17.0.1", "169.254.1.1", "fd00::1", "2001:db8::1", "fec0::1"] {
            assert!(dialled(kept.parse().unwrap()), "{kept}");
        }
    }

    #[tokio::test]
    async fn what_is_read_is_what_getifaddrs_says() {
        let by_name = nix::ifaddrs::getifaddrs().unwrap().filter_map(|interface| {
            let address = interface.address?;
            let four = address.as_sockaddr_in().map(|four| IpAddr::V4(four.ip()));
            four.or_else(|| address.as_sockaddr_in6().map(|six| IpAddr::V6(six.ip())))
        });
        let by_name: BTreeSet<_> = by_name.filter(|address| dialled(*address)).collect();
        assert_eq!(read().await.unwrap(), by_name);
    }
}
