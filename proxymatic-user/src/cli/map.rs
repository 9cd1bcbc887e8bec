//! `proxymatic map`: the pinned maps, and what is in them.

use anyhow::Context as _;
use proxymatic_common::maps::{self, MapDef as _};

use super::{Health, PinArgs};
use crate::{
    dataplane::kernel::{Maps, Pins, map_rows},
    model::suggest,
    surface::{self, Format, dump},
};

/// What can be done with maps.
#[derive(Debug, Default, clap::Subcommand)]
pub(super) enum Verb {
    /// Maps: kind, sizes, and how many entries are in use.
    #[default]
    #[command(alias = "list")]
    Show,
    /// The entries of one map, with the names of what they speak of. Those of a socket storage are found through the
    /// sockets.
    Dump {
        /// The name of the map, such as BACKENDS; `proxymatic map show` lists them.
        #[arg(value_name = "NAME")]
        name: String,
    },
}

pub(super) fn run(verb: &Verb, args: &PinArgs, format: Format) -> anyhow::Result<Health> {
    let pins = Pins::at(&args.bpffs);
    match verb {
        Verb::Show => {
            let rows = map_rows(&pins, &Maps::open(&pins)?)?;
            surface::print(&rows, format).context("cannot print")?;
        }
        Verb::Dump { name } => {
            let known: Vec<_> = maps::ALL.iter().map(|map| map.name).collect();
            let upper = name.to_ascii_uppercase();
            anyhow::ensure!(
                known.contains(&upper.as_str()),
                "no map {name}: the nearest name is {}; `proxymatic map show` lists them all",
                suggest(name, &known)
            );
            let dump = dump(&pins, &Maps::open(&pins)?, &upper)?;
            let dump = dump.with_context(|| match upper.as_str() {
                maps::Scratches::NAME => format!("{upper} is where hooks work: nothing in it lasts"),
                _ => format!(
                    "{upper} is a ring: what is read from it is gone for others; follow it with `proxymatic event watch`"
                ),
            })?;
            surface::print(&dump, format).context("cannot print")?;
        }
    }
    Ok(Health::Well)
}
