//! The three hosts: their numbers, the cables between them, their addresses, and commands on them.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::{lab::Host, net::address_on};

/// The host in the middle.
pub(super) const MIDDLE: u8 = 1;
/// The servers' host.
pub(super) const SERVERS: u8 = 2;
/// The clients' host.
pub(super) const CLIENTS: u8 = 3;
/// Between the middle and the servers.
pub(super) const INNER: u8 = 0;
/// Between the middle and the clients.
pub(super) const OUTER: u8 = 1;
/// Between clients and servers, without the host in the middle.
pub(super) const DIRECT: u8 = 2;
/// The service address.
pub(super) const PORT: u16 = 1234;
/// The server's address.
pub(super) const SERVER: u16 = 9_000;
/// The CPU of the host in the middle.
pub(super) const CPU: &str = "1";

/// Loads netfilter rules on a host.
pub(super) fn nft(host: &Host, rules: &str) -> Result<()> {
    run(host.net().command()?.args(["nft", rules]))
}

/// Runs a command, and fails if the command does.
pub(super) fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The server's address on a network.
pub(super) fn server(network: u8) -> SocketAddr {
    (address_on(network, SERVERS), SERVER).into()
}

/// The middle host's address for clients.
pub(super) fn middle() -> Ipv4Addr {
    address_on(OUTER, MIDDLE)
}
