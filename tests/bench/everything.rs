//! Everything that docs/bench has, written anew: `local`, `change`, `scale` and `fleet`, as many times as asked for.

use std::{fmt::Display, fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{change::Change, fleet::Fleet, local::Local, scale::Scale};

/// All of `local`, `change`, `scale` and `fleet`.
#[derive(Debug, clap::Parser)]
pub(crate) struct Everything {
    /// How often, one run after the other.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Fewer rounds.
    #[arg(long)]
    quick: bool,
    /// Install what is missing of the others, by apt.
    #[arg(long)]
    install: bool,
    /// Where the tables, the numbers as JSON and the charts of the last run go.
    #[arg(long, value_name = "DIR", default_value = "docs/bench")]
    into: PathBuf,
}

impl Everything {
    pub(crate) fn run(&self) -> Result<()> {
        let folder = &self.into;
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        for run in 1..=self.runs {
            let json = |name: &str| folder.join(format!("{name}-{run}.json"));
            let mut text = String::new();
            let local = Local::new(self.quick).measure()?;
            local.write(&json("local"))?;
            local.draw(folder)?;
            said(&mut text, "local", &local);
            let change = Change::new(self.quick).measure()?;
            change.write(&json("change"))?;
            change.draw(folder)?;
            said(&mut text, "change", &change);
            let scale = Scale::new().measure()?;
            scale.write(&json("scale"))?;
            scale.draw(folder)?;
            said(&mut text, "scale", &scale);
            let fleet = Fleet::new().measure()?;
            fleet.write(&json("fleet"))?;
            fleet.draw(folder)?;
            said(&mut text, "fleet", &fleet);
            let file = folder.join(format!("run-{run}.md"));
            let head = format!(
                "# Run {run} of {}\n\nWritten by `cargo xtask bench all`; [README.md](README.md) says what it means.\n",
                self.runs
            );
            fs::write(&file, head + &text).with_context(|| format!("write {}", file.display()))?;
        }
        Ok(())
    }
}

/// Prints a report, and adds it to the text of the run.
fn said(text: &mut String, name: &str, report: &impl Display) {
    println!("{name}\n{report}");
    *text += &format!("\n## bench {name}\n\n```text\n{report}```\n");
}
