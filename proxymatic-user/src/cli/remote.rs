//! The flags for remote clients.

use std::ops::RangeInclusive;

use proxymatic_common::maps::{Conntrack, MapDef as _};

use super::args::{SettingsArgs, bounded};
use crate::dataplane::kernel::RemoteClients;

/// The flags for remote clients. `--interface` is not among them, because `plan show` needs it too.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RemoteArgs {
    /// Whether XDP forwards established connections of remote clients, in the driver of --interface.
    #[arg(long, value_enum, default_value = "off", env = "XDP")]
    xdp: XdpArg,
    /// The SNAT ports: source ports of this host towards backends on other machines. No socket of this host gets one.
    #[arg(long, value_name = "FIRST-LAST", default_value = "61000-64999", value_parser = ports, env = "SNAT_PORTS")]
    snat_ports: RangeInclusive<u16>,
    /// The number of remote connections that the maps can hold. Pinned maps keep their size.
    #[arg(long, value_name = "N", default_value_t = Conntrack::MAX / 2)]
    max_remote_connections: u32,
}

/// The values of `--xdp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum XdpArg {
    /// TC does everything.
    Off,
    /// The driver forwards established connections, if it supports that.
    Native,
}

/// The smallest number of SNAT ports. A port serves only one connection to a backend at a time, so fewer would run out
/// at once.
const FEWEST: u16 = 64;

fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let ends = text.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    let (first, last): (u16, u16) = ends.ok_or("write it as FIRST-LAST, such as 61000-64999")?;
    if first < 1024 || last < first || last - first < FEWEST - 1 {
        return Err(format!("must be at least {FEWEST} ports, all of them 1024 or above, such as 61000-64999"));
    }
    Ok(first..=last)
}

impl RemoteArgs {
    /// Checks the arguments and adds a sentence to `wrong` for each mistake.
    pub(super) fn check(&self, settings: &SettingsArgs, wrong: &mut Vec<String>) -> RemoteClients {
        let connections =
            bounded("--max-remote-connections", self.max_remote_connections, 1, 1 << 23, "connections", wrong);
        let names = settings.interfaces();
        if names.is_empty() && self.xdp == XdpArg::Native {
            wrong.push("--xdp native: needs an interface; name one with --interface".into());
        }
        RemoteClients { names, xdp: self.xdp == XdpArg::Native, snat_ports: self.snat_ports.clone(), connections }
    }
}
