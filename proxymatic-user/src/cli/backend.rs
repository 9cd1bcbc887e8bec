//! `proxymatic backend`: replicas, one a line.

use anyhow::Context as _;

use super::{Health, PinArgs, service};
use crate::surface::{self, BackendOf, Backends, Format};

/// What can be done with backends.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Backends, one a line.
    #[command(alias = "list")]
    Show {
        /// Only those of this service: an app id, the last part of one, or a service port.
        #[arg(value_name = "SERVICE")]
        service: Option<String>,
    },
}

impl Default for Verb {
    fn default() -> Self {
        Self::Show { service: None }
    }
}

pub(super) fn run(verb: Verb, pins: &PinArgs, format: Format) -> anyhow::Result<Health> {
    let Verb::Show { service } = verb;
    let services = service::find(pins, service.as_deref())?;
    let rows = services.into_iter().flat_map(|row| {
        let service = row.name;
        row.backends.into_iter().map(move |backend| BackendOf { service: service.clone(), backend })
    });
    surface::print(&Backends(rows.collect()), format).context("cannot print")?;
    Ok(Health::Well)
}
