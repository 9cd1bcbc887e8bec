//! `proxymatic flow`: live translated sockets.

use anyhow::Context as _;

use super::{Health, PinArgs, service};
use crate::{
    dataplane::kernel::{Maps, Pins, monotonic},
    sockets,
    surface::{self, Format, flow_rows},
};

/// What can be done with flows.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Live translated sockets: who has each, what it dialled, where it was taken. In all network namespaces.
    #[command(alias = "list")]
    Show(Args),
}

/// What `flow show` takes.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    /// Only those of this service: an app id, the last part of one, or a service port.
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
}

pub(super) fn run(args: &Args, pins: &PinArgs, format: Format) -> anyhow::Result<Health> {
    let at = Pins::at(&pins.bpffs);
    let maps = Maps::open(&at)?;
    // Before the sockets, since that takes longer and one that is wrong is soon said.
    let meant = args.service.as_deref().map(|which| service::find(pins, Some(which))).transpose()?;
    let seen = sockets::flows(&at)?;
    let mut rows = flow_rows(&seen.flows, &maps.tables()?, monotonic());
    if let Some(meant) = meant {
        rows.retain(|row| {
            meant.iter().any(|it| row.service.as_deref() == Some(&it.name) && it.protocol == row.protocol)
        });
    }
    if let Some(blind) = seen.limitation {
        surface::print_notice(&blind);
    }
    surface::print(&rows, format).context("cannot print")?;
    Ok(Health::Well)
}
