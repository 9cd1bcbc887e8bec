//! The helper process of the self-test: connects to given addresses and reports whether it reached itself.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::{self, BufRead as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    time::Duration,
};

/// The timeout of a datagram; the loopback interface delivers it at once.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Prints the port of its backend. Then connects to each address on standard input, and prints `ok` or the reason of the
/// failure, until the input ends.
///
/// # Errors
/// Fails if no socket can be opened, or if standard input or output fails.
pub fn answer() -> io::Result<()> {
    let backend = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    backend.set_read_timeout(Some(TIMEOUT))?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}", backend.local_addr()?.port())?;
    out.flush()?;
    for line in io::stdin().lock().lines() {
        let answer = match line?.parse() {
            Ok(to) => test_all_ways(&backend, to).map_or_else(|reason| reason, |()| "ok".into()),
            Err(_) => "it got no valid address".into(),
        };
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

/// Sends datagrams to an IPv4 address in every way, so that each hook takes part.
fn test_all_ways(backend: &UdpSocket, to: SocketAddrV4) -> Result<(), String> {
    let mapped = SocketAddr::from((to.ip().to_ipv6_mapped(), to.port()));
    for (to, local) in [(SocketAddr::V4(to), "0.0.0.0:0"), (mapped, "[::]:0")] {
        let client = match UdpSocket::bind(local) {
            Ok(client) => client,
            // The host has no IPv6.
            Err(_) if to.is_ipv6() => continue,
            Err(error) => return Err(format!("cannot open a socket to test {to}: {error}")),
        };
        test_one(backend, &client, to, false).map_err(|reason| format!("a datagram to {to} {reason}"))?;
        test_one(backend, &client, to, true).map_err(|reason| format!("a connection to {to} {reason}"))?;
    }
    Ok(())
}

fn test_one(backend: &UdpSocket, client: &UdpSocket, to: SocketAddr, connects: bool) -> Result<(), String> {
    let failed = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let lost = "did not reach its service";
    // A late datagram of an earlier test has another nonce.
    let nonce = RandomState::new().build_hasher().finish().to_ne_bytes();
    client.set_read_timeout(Some(TIMEOUT)).map_err(failed("got no timeout"))?;
    if connects {
        client.connect(to).map_err(failed(lost))?;
        client.send(&nonce).map_err(failed(lost))?;
    } else {
        client.send_to(&nonce, to).map_err(failed(lost))?;
    }
    let mut received = [0; 8];
    let from = loop {
        let (_, from) = backend.recv_from(&mut received).map_err(failed(lost))?;
        if received == nonce {
            break from;
        }
    };
    backend.send_to(&nonce, from).map_err(failed("cannot be answered"))?;
    let (_, sender) = client.recv_from(&mut received).map_err(failed("got no answer"))?;
    if received != nonce || !same_endpoint(sender, to) {
        return Err(format!("was answered by {sender}: the reverse hooks do not run"));
    }
    let peer = if connects { client.peer_addr().map_err(failed("has no peer"))? } else { to };
    if same_endpoint(peer, to) { Ok(()) } else { Err(format!("has the peer {peer}: the reverse hooks do not run")) }
}

fn same_endpoint(a: SocketAddr, b: SocketAddr) -> bool {
    let plain = |address: IpAddr| address.to_canonical();
    (plain(a.ip()), a.port()) == (plain(b.ip()), b.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend() -> (UdpSocket, SocketAddrV4) {
        let backend = UdpSocket::bind("127.0.0.1:0").unwrap();
        backend.set_read_timeout(Some(TIMEOUT)).unwrap();
        let SocketAddr::V4(at) = backend.local_addr().unwrap() else { unreachable!("bound to IPv4") };
        (backend, at)
    }

    #[test]
    fn connections_that_reach_the_backend_succeed() {
        let (backend, at) = backend();
        assert_eq!(test_all_ways(&backend, at), Ok(()));
    }

    #[test]
    fn connection_to_another_backend_fails_with_its_address() {
        let (backend, _) = backend();
        let (_stranger, elsewhere) = self::backend();
        let reason = test_all_ways(&backend, elsewhere).unwrap_err();
        assert!(reason.starts_with(&format!("a datagram to {elsewhere} did not reach its service")), "{reason}");
    }
}
