//! `proxymatic service`: what is served, and by whom.

use anyhow::Context as _;

use super::{Health, PinArgs};
use crate::{
    dataplane::kernel::{Maps, Pins},
    surface::{self, Format, ServiceRow},
};

/// What can be done with services.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Services and their backends.
    #[command(alias = "list")]
    Show {
        /// Only the services of this name or port: an app id, the last part of one, or a service port.
        #[arg(value_name = "NAME|PORT")]
        which: Option<String>,
    },
}

impl Default for Verb {
    fn default() -> Self {
        Self::Show { which: None }
    }
}

pub(super) fn run(verb: Verb, pins: &PinArgs, format: Format) -> anyhow::Result<Health> {
    let Verb::Show { which } = verb;
    let rows = find(pins, which.as_deref())?;
    surface::print(&rows, format).context("cannot print")?;
    Ok(Health::Well)
}

/// The services that are meant.
pub(super) fn find(pins: &PinArgs, which: Option<&str>) -> anyhow::Result<Vec<ServiceRow>> {
    let maps = Maps::open(&Pins::at(&pins.bpffs))?;
    let rows = surface::services(&maps)?;
    let Some(which) = which else { return Ok(rows) };
    let names: Vec<String> = rows.iter().map(|row| row.name.clone()).collect();
    let found: Vec<_> = rows.into_iter().filter(|row| is_meant(row, which)).collect();
    if found.is_empty() {
        let near = names.iter().max_by_key(|name| common_letters(name, which));
        let near = near.map_or("there are none".into(), |name| format!("the nearest name is {name}"));
        anyhow::bail!("no service {which}: {near}; `proxymatic service show` lists them all");
    }
    Ok(found)
}

fn is_meant(row: &ServiceRow, which: &str) -> bool {
    row.name == which || row.name.rsplit('/').next() == Some(which) || row.port.to_string() == which
}

/// How many letters two names share in order from either end: enough to find a slip of the finger.
fn common_letters(a: &str, b: &str) -> usize {
    let (a, b) = (a.trim_start_matches('/'), b.trim_start_matches('/'));
    let front = a.chars().zip(b.chars()).take_while(|(x, y)| x == y).count();
    let back = a.chars().rev().zip(b.chars().rev()).take_while(|(x, y)| x == y).count();
    front + back
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_found_by_app_id_last_part_or_port() {
        let row = ServiceRow {
            name: "/shop/web".into(),
            protocol: "tcp",
            address: None,
            port: 1234,
            source: "marathon",
            policy: "leastconn",
            backends: vec![],
            counts: surface::ServiceCounts::default(),
        };
        for which in ["/shop/web", "web", "1234"] {
            assert!(is_meant(&row, which), "{which}");
        }
        for which in ["shop", "eb", "123", "/web"] {
            assert!(!is_meant(&row, which), "{which}");
        }
    }

    #[test]
    fn the_nearest_name_shares_most_letters() {
        assert!(common_letters("/shop/web", "shop/wen") > common_letters("/db", "shop/wen"));
    }
}
