//! `proxymatic map`: the pinned maps and their entries.

use anyhow::Context as _;
use proxymatic_common::maps::{self, MapDef as _};

use super::{Outcome, PinArgs};
use crate::{
    dataplane::kernel::{Maps, Pins, map_rows},
    model::suggest,
    surface::{self, Format, dump},
};

/// The verbs of `map`.
#[derive(Debug, Default, clap::Subcommand)]
pub(super) enum Verb {
    /// Maps: kind, sizes, and the number of used entries.
    #[default]
    #[command(alias = "list")]
    Show,
    /// The entries of one map, with the names of services and backends. Entries of a socket storage are found through
    /// the sockets.
    Dump {
        /// The name of the map, such as BACKENDS; `proxymatic map show` lists them.
        #[arg(value_name = "NAME")]
        name: String,
    },
}

pub(super) fn run(verb: &Verb, args: &PinArgs, format: Format) -> anyhow::Result<Outcome> {
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
                "no map {name}: the nearest name is {}; see `proxymatic map show`",
                suggest(name, &known)
            );
            let dump = dump(&pins, &Maps::open(&pins)?, &upper)?;
            let dump = dump.with_context(|| match upper.as_str() {
                maps::Scratches::NAME => format!("{upper} is working memory of the hooks; its content means nothing"),
                _ => format!(
                    "{upper} is a ring buffer: reading it would consume the events; use `proxymatic event watch`"
                ),
            })?;
            surface::print(&dump, format).context("cannot print")?;
        }
    }
    Ok(Outcome::Ok)
}
