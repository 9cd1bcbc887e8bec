//! `bench all`: runs `local`, `change`, `scale` and `fleet` several times, for docs/bench.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{
    change::Change,
    fleet::Fleet,
    local::Local,
    output::{Measured, Output},
    scale::Scale,
};

/// All of `local`, `change`, `scale` and `fleet`.
#[derive(Debug, clap::Parser)]
pub(crate) struct All {
    /// Number of runs.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Fewer rounds.
    #[arg(long)]
    quick: bool,
    /// Install missing peers by apt.
    #[arg(long)]
    install: bool,
    /// Folder for the tables, and for the JSON and charts of the last run.
    #[arg(long, value_name = "DIR", default_value = "docs/bench")]
    into: PathBuf,
}

impl All {
    pub(crate) fn run(&self) -> Result<()> {
        let folder = &self.into;
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        for run in 1..=self.runs {
            let mut text = format!(
                "# Run {run} of {}\n\nWritten by `cargo xtask bench all`; [README.md](README.md) says what it means.\n",
                self.runs
            );
            self.put(run, &mut text, "local", &Local::new(self.quick).measure()?)?;
            self.put(run, &mut text, "change", &Change::new().measure()?)?;
            self.put(run, &mut text, "scale", &Scale::new().measure()?)?;
            self.put(run, &mut text, "fleet", &Fleet::new().measure()?)?;
            let file = folder.join(format!("run-{run}.md"));
            fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        }
        Ok(())
    }

    /// Prints a report, writes it, and adds it to the text of the run.
    fn put(&self, run: usize, text: &mut String, name: &str, report: &impl Measured) -> Result<()> {
        println!("{name}");
        let json = self.into.join(format!("{name}-{run}.json"));
        Output { json: Some(json), svg: Some(self.into.clone()) }.put(report)?;
        *text += &format!("\n## bench {name}\n\n```text\n{report}```\n");
        Ok(())
    }
}
