//! Follows the addresses of this host by netlink notifications.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use rtnetlink::{
    Handle, MulticastGroup, new_connection, new_multicast_connection,
    packet_route::address::{AddressAttribute, AddressMessage},
};
use tokio::{sync::mpsc, time::timeout};

/// The kernel answers at once, so a later answer is a fault.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The delay of a retry.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Why the addresses cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket could be opened.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[from] std::io::Error),
    /// The kernel refused.
    #[error("cannot read the addresses of this host: {0}")]
    Netlink(#[from] rtnetlink::Error),
    /// The kernel did not answer in time.
    #[error("the kernel has not listed the addresses of this host within {} s", TIMEOUT.as_secs())]
    TimedOut,
    /// The kernel closed the netlink socket.
    #[error("the netlink socket was closed")]
    Closed,
}

/// Returns the addresses of this network namespace, of both families. Leaves out loopback addresses, which hooks
/// recognize by their bits, and IPv6 link-local addresses, which need an interface.
///
/// # Errors
/// Fails if the kernel does not list them.
pub async fn read() -> Result<BTreeSet<IpAddr>, Error> {
    let (connection, handle, _) = new_connection()?;
    let connection = tokio::spawn(connection);
    let addresses = read_all(&handle).await;
    connection.abort();
    addresses
}

/// Sends all addresses at once and after each change, until the channel closes.
pub async fn follow(changed: mpsc::Sender<BTreeSet<IpAddr>>) {
    while !changed.is_closed() {
        match send_changes(&changed).await {
            Ok(()) => return,
            // The last addresses stay in use.
            Err(error) => tracing::warn!("{error}; retrying in {} s", RETRY_DELAY.as_secs()),
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

/// Sends after each change of an interface of this network namespace, until the channel closes. The runtime of a container
/// changes the host's end of its link after the container has its address.
pub async fn follow_links(changed: mpsc::Sender<()>) {
    while !changed.is_closed() {
        if let Err(error) = send_link_changes(&changed).await {
            tracing::warn!("{error}; retrying in {} s", RETRY_DELAY.as_secs());
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

async fn send_link_changes(changed: &mpsc::Sender<()>) -> Result<(), Error> {
    let (connection, _handle, mut notifications) = new_multicast_connection(&[MulticastGroup::Link])?;
    tokio::spawn(connection);
    loop {
        tokio::select! {
            one = notifications.next() => one.ok_or(Error::Closed)?,
            () = changed.closed() => return Ok(()),
        };
        while let Some(more) = notifications.next().now_or_never() {
            more.ok_or(Error::Closed)?;
        }
        if changed.send(()).await.is_err() {
            return Ok(());
        }
    }
}

/// Subscribes before the first read, so that no change in between is missed.
async fn send_changes(changed: &mpsc::Sender<BTreeSet<IpAddr>>) -> Result<(), Error> {
    let groups = [MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let (connection, handle, mut notifications) = new_multicast_connection(&groups)?;
    // The task ends with the handle.
    tokio::spawn(connection);
    let mut last = None;
    loop {
        let now = read_all(&handle).await?;
        if last.as_ref() != Some(&now) {
            if changed.send(now.clone()).await.is_err() {
                return Ok(());
            }
            last = Some(now);
        }
        // The content of notifications is ignored, so that none matters if the kernel drops some (ENOBUFS).
        tokio::select! {
            one = notifications.next() => one.ok_or(Error::Closed)?,
            () = changed.closed() => return Ok(()),
        };
        while let Some(more) = notifications.next().now_or_never() {
            more.ok_or(Error::Closed)?;
        }
    }
}

async fn read_all(handle: &Handle) -> Result<BTreeSet<IpAddr>, Error> {
    let messages = handle.address().get().execute().try_collect::<Vec<_>>();
    let messages = timeout(TIMEOUT, messages).await.map_err(|_| Error::TimedOut)??;
    Ok(messages.iter().filter_map(reachable).collect())
}

/// Returns the host's end of an address. On a point-to-point link the other attribute is the far end.
fn local_end(message: &AddressMessage) -> Option<IpAddr> {
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

/// Returns the host's end of an address, if other machines can send to it.
pub(crate) fn reachable(message: &AddressMessage) -> Option<IpAddr> {
    local_end(message).filter(|address| may_have_services(*address))
}

/// Returns true if services may be reached at an address.
pub(crate) fn may_have_services(address: IpAddr) -> bool {
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
    fn local_end_of_a_point_to_point_link_is_taken() {
        let (here, there) = (IpAddr::from([10, 8, 0, 1]), IpAddr::from([10, 8, 0, 2]));
        let both = message(vec![AddressAttribute::Address(there), AddressAttribute::Local(here)]);
        assert_eq!(local_end(&both), Some(here));
        assert_eq!(local_end(&message(vec![AddressAttribute::Address(there)])), Some(there));
        assert_eq!(local_end(&message(vec![])), None);
    }

    #[test]
    fn loopback_and_link_local_addresses_are_left_out() {
        for left in ["127.0.0.1", "127.8.0.1", "::1", "fe80::1", "febf::1", "::", "0.0.0.0"] {
            assert!(!may_have_services(left.parse().unwrap()), "{left}");
        }
        for kept in ["10.0.0.1", "172.17.0.1", "169.254.1.1", "fd00::1", "2001:db8::1", "fec0::1"] {
            assert!(may_have_services(kept.parse().unwrap()), "{kept}");
        }
    }

    #[tokio::test]
    async fn addresses_are_those_of_getifaddrs() {
        loop {
            let before = read().await.unwrap();
            let by_name = nix::ifaddrs::getifaddrs().unwrap().filter_map(|interface| {
                let address = interface.address?;
                let four = address.as_sockaddr_in().map(|four| IpAddr::V4(four.ip()));
                four.or_else(|| address.as_sockaddr_in6().map(|six| IpAddr::V6(six.ip())))
            });
            let by_name: BTreeSet<_> = by_name.filter(|address| may_have_services(*address)).collect();
            // Where an address has come or gone meanwhile, nothing can be compared.
            if read().await.unwrap() == before {
                assert_eq!(before, by_name);
                return;
            }
        }
    }
}
