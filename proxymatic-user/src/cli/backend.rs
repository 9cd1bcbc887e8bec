//! `proxymatic backend`: replicas, one a line, and which of them are to take no new connections.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use proxymatic_common::BackendState;

use super::{Health, PinArgs, service};
use crate::{
    dataplane::kernel::{Drain, Maps, Pins, drain},
    model::suggest,
    plan::{BackendEntry, MapState},
    surface::{self, BackendOf, BackendRow, Backends, DrainResult, Format, ServiceRow},
};

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
    /// Give a backend no new connections, in all its services, until undrain or until its task ends. Open connections
    /// stay. Exit code 1 where that leaves a service without an active backend.
    Drain {
        /// Where the backend listens, such as 10.0.0.5:31005 or [fd00::5]:31005.
        #[arg(value_name = "ADDR:PORT")]
        backend: SocketAddr,
    },
    /// Let a backend be again what its source says of it.
    Undrain {
        /// Where the backend listens.
        #[arg(value_name = "ADDR:PORT")]
        backend: SocketAddr,
    },
}

/// How long to wait for an agent that lets a backend in again, and how often to look.
const PATIENCE: Duration = Duration::from_secs(2);
const OFTEN: Duration = Duration::from_millis(50);

impl Default for Verb {
    fn default() -> Self {
        Self::Show { service: None }
    }
}

pub(super) fn run(verb: Verb, pins: &PinArgs, format: Format) -> anyhow::Result<Health> {
    match verb {
        Verb::Show { service } => {
            let services = service::find(pins, service.as_deref())?;
            surface::print(&Backends(backends(services).collect()), format).context("cannot print")?;
            Ok(Health::Well)
        }
        Verb::Drain { backend } => set(pins, backend, Drain::Begin, format),
        Verb::Undrain { backend } => set(pins, backend, Drain::End, format),
    }
}

fn backends(services: Vec<ServiceRow>) -> impl Iterator<Item = BackendOf> {
    services.into_iter().flat_map(|row| {
        let service = row.name;
        row.backends.into_iter().map(move |backend| BackendOf { service: service.clone(), backend })
    })
}

fn set(args: &PinArgs, at: SocketAddr, to: Drain, format: Format) -> anyhow::Result<Health> {
    let pins = Pins::at(&args.bpffs);
    let mut maps = Maps::open(&pins)?;
    let meant = meant(&maps.tables()?, at)?;
    drain(&pins, &mut maps, &meant, to)?;
    let until = Instant::now() + PATIENCE;
    // An agent gives them connections again with its next look round; not those that are ejected for long.
    while to == Drain::End && !meant.keys().all(|id| maps.is_drawn(*id)) && Instant::now() < until {
        a_moment();
    }
    let here = |row: &BackendRow| SocketAddr::new(row.address, row.port) == at;
    let mut services = surface::services(&maps)?;
    services.retain(|service| service.backends.iter().any(here));
    let bare = services.iter().filter(|service| to == Drain::Begin && !service.backends.iter().any(is_open));
    let warnings: Vec<_> = bare
        .map(|service| {
            format!(
                "{} has no other backend that is active, so new connections still go to draining ones; undrain one, or \
                 scale it up",
                service.name
            )
        })
        .collect();
    let health = if warnings.is_empty() { Health::Well } else { Health::Unwell };
    let rows = backends(services).filter(|row| here(&row.backend)).collect();
    surface::print(&DrainResult { backends: rows, warnings }, format).context("cannot print")?;
    Ok(health)
}

#[expect(clippy::disallowed_methods, reason = "between looks for a fact, with a deadline")]
fn a_moment() {
    thread::sleep(OFTEN);
}

fn is_open(row: &BackendRow) -> bool {
    ["active", "full", "ejected"].contains(&row.state)
}

/// The ids of the backends that listen there, each with the owner it has now.
fn meant(tables: &MapState, at: SocketAddr) -> anyhow::Result<BTreeMap<u32, u32>> {
    let live = || tables.backends().iter().filter(|(_, entry)| entry.backend.state != BackendState::GONE);
    let found: BTreeMap<_, _> = live()
        .filter(|(_, entry)| socket(entry) == canonical(at))
        .map(|(id, entry)| (*id, entry.backend.generation))
        .collect();
    if found.is_empty() {
        let known: Vec<_> = live().map(|(_, entry)| socket(entry).to_string()).collect();
        let near = match suggest(&at.to_string(), &known.iter().map(String::as_str).collect::<Vec<_>>()) {
            "" => "there are none".into(),
            near => format!("the nearest is {near}"),
        };
        anyhow::bail!("no backend {at}: {near}; `proxymatic backend show` lists them all");
    }
    Ok(found)
}

fn socket(entry: &BackendEntry) -> SocketAddr {
    SocketAddr::new(entry.backend.address.into(), entry.backend.port.get())
}

fn canonical(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(at.ip().to_canonical(), at.port())
}
