//! Features of the kernel under a lab, each probed once.

use std::fs;
use std::sync::OnceLock;

// Imported by name, since the first macro calls the second.
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket};
use nix::{getsockopt_impl, sockopt_impl};

use crate::net::NetNs;
use crate::skip::skipped;

sockopt_impl!(
    /// The cookie of the network namespace that a socket is in.
    NetnsCookie, GetOnly, libc::SOL_SOCKET, SO_NETNS_COOKIE, u64
);
/// From asm-generic/socket.h.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// Whether the kernel tells programs their network namespace (SO_NETNS_COOKIE, from 5.14). Without it an agent cannot
/// tell the host's loopback from that of a container.
#[must_use]
pub fn tells_netns() -> bool {
    static TELLS: OnceLock<bool> = OnceLock::new();
    *TELLS.get_or_init(|| {
        let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
        any.is_ok_and(|any| getsockopt(&any, NetnsCookie).is_ok())
    })
}

/// The `--loopback` argument of an agent if a test sets none: none, so that it serves the host's loopback; or `all`, if
/// the kernel cannot tell which loopback that is.
pub(super) fn loopback(arguments: &[&str]) -> &'static [&'static str] {
    if tells_netns() || arguments.contains(&"--loopback") { &[] } else { &["--loopback", "all"] }
}

/// For a test of `--loopback host`: reports a skip if the kernel cannot tell namespaces apart.
///
/// # Errors
/// Standard error cannot be written to.
pub fn skips_loopback_host(what: &str) -> std::io::Result<bool> {
    if !tells_netns() {
        skipped(what, "this kernel does not tell which network namespace a program is in (SO_NETNS_COOKIE, 5.14)")?;
    }
    Ok(!tells_netns())
}

/// The error of a refused datagram on an unconnected socket: in the call itself, or in the next one as from a closed
/// port if hooks cannot set the error (bpf_set_retval, 5.18).
#[must_use]
pub fn refused_datagram() -> &'static str {
    if at_least((5, 18)) { "send ECONNREFUSED" } else { "receive ECONNREFUSED" }
}

/// The error of a refused datagram on a socket that connects first.
#[must_use]
pub fn refused_connect() -> &'static str {
    if at_least((5, 18)) { "connect ECONNREFUSED" } else { "receive ECONNREFUSED" }
}

/// For a test of MPTCP: reports a skip if the kernel has none, or does not tell hooks the socket of a subflow.
///
/// # Errors
/// Standard error cannot be written to.
pub fn skips_mptcp(net: &NetNs, what: &str) -> std::io::Result<bool> {
    let why = if net.sysctl("net/mptcp/enabled", "1").is_err() {
        "this kernel has none"
    } else if !at_least((5, 19)) {
        "this kernel does not tell hooks which MPTCP socket a subflow is of (5.19)"
    } else {
        return Ok(false);
    };
    skipped(what, why)?;
    Ok(true)
}

/// By version, since the agent probes the kernel itself: two equal probes would not find each other's faults.
fn at_least(version: (u32, u32)) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= version
}
