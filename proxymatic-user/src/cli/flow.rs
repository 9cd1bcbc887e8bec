//! `proxymatic flow`: live translated sockets.

use anyhow::Context as _;

use super::{Outcome, PinArgs, service};
use crate::{
    dataplane::kernel::{Maps, Pins, monotonic},
    sockets,
    surface::{self, Format, flow_rows},
};

/// The verbs of `flow`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Live translated sockets in all network namespaces: process, destination and backend of each.
    #[command(alias = "list")]
    Show(Args),
}

/// The arguments of `flow show`.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    /// Show only this service: an app id, the last part of one, or a service port.
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
}

pub(super) fn run(args: &Args, pins: &PinArgs, format: Format) -> anyhow::Result<Outcome> {
    let at = Pins::at(&pins.bpffs);
    let maps = Maps::open(&at)?;
    // Checked before the sockets are read, because that takes longer.
    let services = args.service.as_deref().map(|which| service::find(pins, Some(which))).transpose()?;
    let seen = sockets::flows(&at)?;
    let mut rows = flow_rows(&seen.flows, &maps.tables()?, monotonic());
    if let Some(services) = services {
        rows.retain(|row| {
            services.iter().any(|it| row.service.as_deref() == Some(&it.name) && it.protocol == row.protocol)
        });
    }
    if let Some(blind) = seen.limitation {
        surface::print_notice(&blind);
    }
    surface::print(&rows, format).context("cannot print")?;
    Ok(Outcome::Ok)
}
