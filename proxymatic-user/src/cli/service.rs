//! `proxymatic service`: the services and their backends.

use anyhow::Context as _;

use super::{Outcome, PinArgs};
use crate::{
    dataplane::kernel::{Maps, Pins},
    model::suggest,
    surface::{self, Format, ServiceRow},
};

/// The verbs of `service`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Services and their backends.
    #[command(alias = "list")]
    Show {
        /// Show only the services with this name or port: an app id, the last part of one, or a service port.
        #[arg(value_name = "NAME|PORT")]
        which: Option<String>,
    },
}

impl Default for Verb {
    fn default() -> Self {
        Self::Show { which: None }
    }
}

pub(super) fn run(verb: Verb, pins: &PinArgs, format: Format) -> anyhow::Result<Outcome> {
    let Verb::Show { which } = verb;
    let mut rows = find(pins, which.as_deref())?;
    add_reasons(&mut rows, pins)?;
    surface::print(&rows, format).context("cannot print")?;
    Ok(Outcome::Ok)
}

/// Adds why backends are not used yet, if the running agent knows.
pub(super) fn add_reasons(rows: &mut [ServiceRow], pins: &PinArgs) -> anyhow::Result<()> {
    if rows.iter().flat_map(|row| &row.backends).any(|backend| backend.state == surface::WARMING) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let agent = runtime.context("cannot start tokio")?.block_on(surface::ask(&pins.socket));
        surface::add_reasons(rows, &agent.map(|agent| agent.awaited).unwrap_or_default());
    }
    Ok(())
}

/// Returns the services that `which` selects; all without it.
pub(super) fn find(pins: &PinArgs, which: Option<&str>) -> anyhow::Result<Vec<ServiceRow>> {
    let maps = Maps::open(&Pins::at(&pins.bpffs))?;
    let rows = surface::services(&maps)?;
    let Some(which) = which else { return Ok(rows) };
    named(rows, which)
}

/// Returns the services selected by an app id, a port, or the last part of an app id. All matches are returned, because
/// several apps may end in the same part, and several services may have one name.
pub(super) fn named(rows: Vec<ServiceRow>, which: &str) -> anyhow::Result<Vec<ServiceRow>> {
    let whole = rows.iter().any(|row| row.name == which);
    let is_selected = |row: &ServiceRow| {
        row.name == which || (!whole && (last_part(&row.name) == which || row.port.to_string() == which))
    };
    let (found, others): (Vec<_>, Vec<_>) = rows.into_iter().partition(is_selected);
    if !found.is_empty() {
        return Ok(found);
    }
    let ports: Vec<_> = others.iter().map(|row| row.port.to_string()).collect();
    let names = others.iter().map(|row| if which.contains('/') { row.name.as_str() } else { last_part(&row.name) });
    let (kind, known): (_, Vec<&str>) = if which.bytes().all(|byte| byte.is_ascii_digit()) {
        ("port", ports.iter().map(String::as_str).collect())
    } else {
        ("name", names.collect())
    };
    let near = match suggest(which, &known) {
        "" => "there are none".into(),
        near => format!("the nearest {kind} is {near}"),
    };
    anyhow::bail!("no service {which}: {near}; see `proxymatic service show`")
}

fn last_part(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, port: u16) -> ServiceRow {
        ServiceRow {
            name: name.into(),
            protocol: "tcp",
            address: None,
            port,
            source: "marathon",
            policy: "leastconn",
            backends: vec![],
            counts: surface::ServiceCounts::default(),
        }
    }

    fn rows() -> Vec<ServiceRow> {
        vec![row("/shop/web", 1234), row("/blog/web", 1235), row("web", 1236), row("/shop/db", 5432)]
    }

    #[test]
    fn service_is_found_by_app_id_last_part_or_port() {
        let ports = |which: &str| named(rows(), which).map(|rows| rows.iter().map(|row| row.port).collect::<Vec<_>>());
        for (which, found) in [
            ("/shop/web", vec![1234]),
            ("db", vec![5432]),
            ("1235", vec![1235]),
            // A full name takes precedence over names that end in it.
            ("web", vec![1236]),
        ] {
            assert_eq!(ports(which).unwrap(), found, "{which}");
        }
        for which in ["shop", "eb", "123", "/web"] {
            assert!(ports(which).is_err(), "{which}");
        }
        let mut ambiguous = rows();
        ambiguous.remove(2);
        assert_eq!(named(ambiguous, "web").unwrap().len(), 2, "all matches are returned");
    }

    #[test]
    fn unknown_service_is_an_error_with_the_nearest_one() {
        let error = |rows, which| named(rows, which).unwrap_err().to_string();
        let all = "see `proxymatic service show`";
        assert_eq!(error(rows(), "/shop/wen"), format!("no service /shop/wen: the nearest name is /shop/web; {all}"));
        assert_eq!(error(rows(), "dbb"), format!("no service dbb: the nearest name is db; {all}"));
        assert_eq!(error(rows(), "5433"), format!("no service 5433: the nearest port is 5432; {all}"));
        assert_eq!(error(vec![], "web"), format!("no service web: there are none; {all}"));
    }
}
