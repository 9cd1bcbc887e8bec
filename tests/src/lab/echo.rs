//! An echo server on a host: see the program `echo`.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;

use super::host::Host;
use crate::eventually::PATIENCE;
use crate::process::{Process, binary};

/// A running `echo`; dropping it ends it.
#[derive(Debug)]
pub struct Echo {
    /// Its addresses, on the first network of its host.
    pub places: [SocketAddr; 2],
    /// The process, for tests that kill it.
    pub process: Process,
}

impl Host {
    /// Starts an echo server for TCP and UDP, at every address of either family.
    pub fn echo(&self, port: u16, name: char) -> Result<Echo> {
        let [four, six] = self.addresses_on(self.home()).map(|address| SocketAddr::new(address, port));
        let places = [four, six].map(|it| it.to_string());
        let name = name.to_string();
        let arguments = ["--name", &name, "--listen", &places[0], "--listen", &places[1]];
        let mut process = self.spawn(&binary("echo")?, &arguments)?;
        process.said("listening", PATIENCE)?;
        Ok(Echo { places: [four, six], process })
    }
}

impl Echo {
    /// The index of an address's family.
    #[must_use]
    pub fn place_for(&self, address: IpAddr) -> SocketAddr {
        self.places[usize::from(address.is_ipv6())]
    }
}
