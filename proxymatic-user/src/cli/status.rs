//! `proxymatic status`: the status of this host on one screen.

use anyhow::Context as _;

use super::{Outcome, PinArgs};
use crate::{
    dataplane::kernel::{Maps, Pins},
    surface::{self, Format},
};

pub(super) fn run(args: &PinArgs, format: Format) -> anyhow::Result<Outcome> {
    let pins = Pins::at(&args.bpffs);
    let maps = Maps::open(&pins)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    let agent = runtime.block_on(surface::ask(&args.socket));
    let status = surface::status(&pins, &maps, agent)?;
    surface::print(&status, format).context("cannot print")?;
    Ok(if status.problems.is_empty() { Outcome::Ok } else { Outcome::Problems })
}
