//! The task of a peer: the services that it serves, and where.

use std::{fs, net::Ipv4Addr, path::PathBuf};

use anyhow::{Context as _, Result};
use proxymatic_tests::lab::Host;

/// A service, in the form for all peers.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) port: u16,
    pub(crate) udp: bool,
    /// The ports of its backends, all on one address.
    pub(crate) backends: Vec<u16>,
}

/// The task of a peer, and its place.
pub(crate) struct Task<'a> {
    pub(crate) host: &'a Host,
    /// The folder of its files, which any user may write to.
    pub(crate) folder: PathBuf,
    /// The address of all backends.
    pub(crate) backend: Ipv4Addr,
    pub(crate) services: Vec<Service>,
}

impl Task<'_> {
    /// Writes a file into the folder and returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<String> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path.to_str().context("the run directory is not UTF-8")?.to_owned())
    }
}
