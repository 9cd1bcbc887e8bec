//! `proxymatic backend`: backends, one a line, and the operator's drains.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use proxymatic_common::BackendState;

use super::{Outcome, PinArgs, service};
use crate::{
    dataplane::kernel::{Drain, Maps, Pins, drain},
    model::suggest,
    plan::{BackendEntry, MapState},
    surface::{self, BackendOf, BackendRow, Backends, DrainResult, Format, ServiceRow},
};

/// The verbs of `backend`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Backends, one a line.
    #[command(alias = "list")]
    Show {
        /// Show only this service: an app id, the last part of one, or a service port.
        #[arg(value_name = "SERVICE")]
        service: Option<String>,
    },
    /// Give a backend no new connections, in all its services, until undrain or until its task ends. Open connections
    /// stay. Exit code 1 if a service then has no active backend.
    Drain {
        /// The address of the backend, such as 10.0.0.5:31005 or [fd00::5]:31005.
        #[expect(
            rustdoc::broken_intra_doc_links,
            reason = "it is a help text as well, in which an address has brackets"
        )]
        #[arg(value_name = "ADDR:PORT")]
        backend: SocketAddr,
    },
    /// Return a backend to the state that its source gives it.
    Undrain {
        /// The address of the backend.
        #[arg(value_name = "ADDR:PORT")]
        backend: SocketAddr,
    },
}

/// How long to wait until the agent gives a backend slots again, and how often to check.
const UNDRAIN_TIMEOUT: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

impl Default for Verb {
    fn default() -> Self {
        Self::Show { service: None }
    }
}

pub(super) fn run(verb: Verb, pins: &PinArgs, format: Format) -> anyhow::Result<Outcome> {
    match verb {
        Verb::Show { service } => {
            let mut services = service::find(pins, service.as_deref())?;
            service::add_reasons(&mut services, pins)?;
            surface::print(&Backends(backends(services).collect()), format).context("cannot print")?;
            Ok(Outcome::Ok)
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

fn set(args: &PinArgs, at: SocketAddr, to: Drain, format: Format) -> anyhow::Result<Outcome> {
    let pins = Pins::at(&args.bpffs);
    let mut maps = Maps::open(&pins)?;
    let addressed = backends_at(&maps.tables()?, at)?;
    drain(&pins, &mut maps, &addressed, to)?;
    let until = Instant::now() + UNDRAIN_TIMEOUT;
    // The agent gives them slots again in its next loop iteration, except those that are parked.
    while to == Drain::End && !addressed.keys().all(|id| maps.is_drawn(*id)) && Instant::now() < until {
        pause();
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
    let outcome = if warnings.is_empty() { Outcome::Ok } else { Outcome::Problems };
    let rows = backends(services).filter(|row| here(&row.backend)).collect();
    surface::print(&DrainResult { backends: rows, warnings }, format).context("cannot print")?;
    Ok(outcome)
}

#[expect(clippy::disallowed_methods, reason = "a poll interval, with a deadline")]
fn pause() {
    thread::sleep(POLL_INTERVAL);
}

fn is_open(row: &BackendRow) -> bool {
    ["active", "full", "ejected"].contains(&row.state)
}

/// Returns the ids of the backends at this address, each with its current generation.
fn backends_at(tables: &MapState, at: SocketAddr) -> anyhow::Result<BTreeMap<u32, u32>> {
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
        anyhow::bail!("no backend {at}: {near}; see `proxymatic backend show`");
    }
    Ok(found)
}

fn socket(entry: &BackendEntry) -> SocketAddr {
    SocketAddr::new(entry.backend.address.into(), entry.backend.port.get())
}

fn canonical(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(at.ip().to_canonical(), at.port())
}
