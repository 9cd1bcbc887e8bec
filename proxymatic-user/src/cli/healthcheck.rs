//! `proxymatic healthcheck`: whether the agent should be left running, for the supervisor of its container.

use anyhow::Context as _;

use super::{Outcome, PinArgs};
use crate::surface::{self, Format, HealthcheckResult};

/// The agent's own loop serves the socket, so an agent with a stuck loop does not answer. Nothing else is checked:
/// `status` shows the problems of sources, services and the kernel, which no restart would fix.
pub(super) fn run(pins: &PinArgs, format: Format) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    let state = runtime.block_on(surface::ask(&pins.socket)).map(|agent| agent.state);
    let outcome = if state.is_some() { Outcome::Ok } else { Outcome::Problems };
    surface::print(&HealthcheckResult { state }, format).context("cannot print")?;
    Ok(outcome)
}
