//! `proxymatic detach`: removes all pins, so that the kernel forwards nothing any more.

use anyhow::Context as _;

use super::{Outcome, PinArgs};
use crate::{
    dataplane::kernel::Pins,
    host_checks,
    surface::{self, DetachResult, Format},
};

pub(super) fn run(pins: &PinArgs, format: Format) -> anyhow::Result<Outcome> {
    let removed = Pins::at(&pins.bpffs).detach()?;
    host_checks::give_back(&pins.reserved()).map_err(anyhow::Error::msg)?;
    surface::print(&DetachResult { removed }, format).context("cannot print")?;
    Ok(Outcome::Ok)
}
