//! The helper process: dials what it is told, and says whether that led to itself.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::{self, BufRead as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    time::Duration,
};

/// On the loopback interface a datagram is there when it has been sent.
const PATIENCE: Duration = Duration::from_millis(500);

/// Says on standard output where it listens, then dials each address that is told on standard input, and answers `ok` or
/// why not, until the input ends.
///
/// # Errors
/// There is no socket to be had, or the line is broken.
pub fn answer() -> io::Result<()> {
    let backend = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    backend.set_read_timeout(Some(PATIENCE))?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}", backend.local_addr()?.port())?;
    out.flush()?;
    for line in io::stdin().lock().lines() {
        let answer = match line?.parse() {
            Ok(to) => dial_all(&backend, to).map_or_else(|reason| reason, |()| "ok".into()),
            Err(_) => "it was told no address".into(),
        };
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

/// Every way to send a datagram to an IPv4 address, so that each of the hooks has its part.
fn dial_all(backend: &UdpSocket, to: SocketAddrV4) -> Result<(), String> {
    let mapped = SocketAddr::from((to.ip().to_ipv6_mapped(), to.port()));
    for (to, local) in [(SocketAddr::V4(to), "0.0.0.0:0"), (mapped, "[::]:0")] {
        let client = match UdpSocket::bind(local) {
            Ok(client) => client,
            // A host without IPv6.
            Err(_) if to.is_ipv6() => continue,
            Err(error) => return Err(format!("it has no socket to dial {to} with: {error}")),
        };
        dial(backend, &client, to, false).map_err(|reason| format!("a datagram to {to} {reason}"))?;
        dial(backend, &client, to, true).map_err(|reason| format!("a connection to {to} {reason}"))?;
    }
    Ok(())
}

fn dial(backend: &UdpSocket, client: &UdpSocket, to: SocketAddr, connects: bool) -> Result<(), String> {
    let failed = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let lost = "did not lead to its service";
    // Of an earlier test that was given up.
    let nonce = RandomState::new().build_hasher().finish().to_ne_bytes();
    client.set_read_timeout(Some(PATIENCE)).map_err(failed("cannot be waited for"))?;
    if connects {
        client.connect(to).map_err(failed(lost))?;
        client.send(&nonce).map_err(failed(lost))?;
    } else {
        client.send_to(&nonce, to).map_err(failed(lost))?;
    }
    let mut heard = [0; 8];
    let from = loop {
        let (_, from) = backend.recv_from(&mut heard).map_err(failed(lost))?;
        if heard == nonce {
            break from;
        }
    };
    backend.send_to(&nonce, from).map_err(failed("cannot be answered"))?;
    let (_, sender) = client.recv_from(&mut heard).map_err(failed("got no answer"))?;
    if heard != nonce || !same(sender, to) {
        return Err(format!("was answered by {sender}: the hooks that lead back do not run"));
    }
    let peer = if connects { client.peer_addr().map_err(failed("has no peer"))? } else { to };
    if same(peer, to) { Ok(()) } else { Err(format!("has the peer {peer}: the hooks that lead back do not run")) }
}

fn same(a: SocketAddr, b: SocketAddr) -> bool {
    let plain = |address: IpAddr| address.to_canonical();
    (plain(a.ip()), a.port()) == (plain(b.ip()), b.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend() -> (UdpSocket, SocketAddrV4) {
        let backend = UdpSocket::bind("127.0.0.1:0").unwrap();
        backend.set_read_timeout(Some(PATIENCE)).unwrap();
        let SocketAddr::V4(at) = backend.local_addr().unwrap() else { unreachable!("bound to IPv4") };
        (backend, at)
    }

    #[test]
    fn what_leads_to_the_backend_and_back_succeeds() {
        let (backend, at) = backend();
        assert_eq!(dial_all(&backend, at), Ok(()));
    }

    #[test]
    fn what_leads_elsewhere_fails_and_is_named() {
        let (backend, _) = backend();
        let (_stranger, elsewhere) = self::backend();
        let reason = dial_all(&backend, elsewhere).unwrap_err();
        assert!(reason.starts_with(&format!("a datagram to {elsewhere} did not lead to its service")), "{reason}");
    }
}
