//! `proxymatic healthcheck`: whether the agent should be left running, asked by whoever supervises its container.

use anyhow::Context as _;

use super::{Health, PinArgs};
use crate::surface::{self, Format, HealthcheckResult};

/// The socket is served by the agent's own loop: one that stands still does not answer. Nothing else is looked at: what is
/// wrong with a source, a service or the kernel is for `status`, and no restart mends it.
pub(super) fn run(pins: &PinArgs, format: Format) -> anyhow::Result<Health> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    let state = runtime.block_on(surface::ask(&pins.socket)).map(|agent| agent.state);
    let health = if state.is_some() { Health::Well } else { Health::Unwell };
    surface::print(&HealthcheckResult { state }, format).context("cannot print")?;
    Ok(health)
}
