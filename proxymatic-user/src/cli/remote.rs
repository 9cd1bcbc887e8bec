//! The flags for clients on other machines.

use std::ops::RangeInclusive;

use proxymatic_common::maps::{Conntrack, MapDef as _};

use super::config::{SettingsArgs, bounded};
use crate::dataplane::kernel::RemoteClients;

/// How clients on other machines are served. Which interfaces they come by is among what `plan show` must know too.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RemoteArgs {
    /// Whether established connections of clients on other machines are forwarded by XDP, in the driver of --interface.
    #[arg(long, value_enum, default_value = "off", env = "XDP")]
    xdp: XdpArg,
    /// The ports of this host that are used to talk to backends on other machines for such clients; kept from sockets.
    #[arg(long, value_name = "FIRST-LAST", default_value = "61000-64999", value_parser = ports, env = "SNAT_PORTS")]
    snat_ports: RangeInclusive<u16>,
    /// How many connections of such clients fit. Maps that are pinned already keep their size.
    #[arg(long, value_name = "N", default_value_t = Conntrack::MAX / 2)]
    max_remote_connections: u32,
}

/// `--xdp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum XdpArg {
    /// Everything is done by TC.
    Off,
    /// Established connections are forwarded in the driver, where it can do that.
    Native,
}

/// Fewer would be gone at once: a port serves one connection to a backend at a time.
const FEWEST: u16 = 64;

fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let ends = text.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    let (first, last): (u16, u16) = ends.ok_or("write it as FIRST-LAST, such as 61000-64999")?;
    if first < 1024 || last < first || last - first < FEWEST - 1 {
        return Err(format!("must be {FEWEST} ports or more, none of them below 1024, such as 61000-64999"));
    }
    Ok(first..=last)
}

impl RemoteArgs {
    /// Checks what was typed, and adds a sentence to `wrong` for each thing that is no good.
    pub(super) fn check(&self, wishes: &SettingsArgs, wrong: &mut Vec<String>) -> RemoteClients {
        let connections =
            bounded("--max-remote-connections", self.max_remote_connections, 1, 1 << 23, "connections", wrong);
        let names = wishes.interfaces();
        if names.is_empty() && self.xdp == XdpArg::Native {
            wrong.push("--xdp native: on which interface? name it with --interface".into());
        }
        RemoteClients { names, xdp: self.xdp == XdpArg::Native, snat_ports: self.snat_ports.clone(), connections }
    }
}
