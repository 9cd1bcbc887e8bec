//! `bench all`: runs `local`, `change`, `scale` and `fleet` several times. `bench report` makes docs/bench of that.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    change::{self, Change},
    fleet::{self, Fleet},
    local::{self, Local},
    output::{Measured, Target, write_json},
    scale::{self, Scale},
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
    /// Folder for the results: one JSON file for each run, and what `report` makes of them.
    #[arg(long, value_name = "DIR", default_value = "docs/bench")]
    into: PathBuf,
}

/// The report on the runs of `all`: all targets of all runs, and tables and charts of the last run.
#[derive(Debug, clap::Parser)]
pub(crate) struct Report {
    /// Folder of the results.
    #[arg(default_value = "docs/bench")]
    folder: PathBuf,
}

/// All values of one run.
#[derive(Debug, Serialize, Deserialize)]
struct Run {
    local: local::Report,
    change: change::Report,
    scale: scale::Report,
    fleet: fleet::Report,
}

impl All {
    pub(crate) fn run(&self) -> Result<()> {
        let folder = &self.into;
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        for nth in 1..=self.runs {
            write_json(&file(folder, nth), &Run::measure(self.quick)?)?;
        }
        // Ends the sequence if there were more runs before.
        let next = file(folder, self.runs + 1);
        match fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
        .with_context(|| format!("remove {}", next.display()))?;
        Report { folder: folder.clone() }.run()
    }
}

impl Report {
    pub(crate) fn run(&self) -> Result<()> {
        let mut runs = Vec::new();
        while let Some(run) = read(&file(&self.folder, runs.len() + 1))? {
            runs.push(run);
        }
        ensure!(!runs.is_empty(), "{} has no run-1.json; `bench all` makes it", self.folder.display());
        let results = self.folder.join("results.md");
        fs::write(&results, text(&runs)?).with_context(|| format!("write {}", results.display()))?;
        runs.last().map_or(Ok(()), |last| last.parts().into_iter().try_for_each(|(_, part)| part.draw(&self.folder)))
    }
}

fn file(folder: &Path, nth: usize) -> PathBuf {
    folder.join(format!("run-{nth}.json"))
}

fn read(file: &Path) -> Result<Option<Run>> {
    match fs::read_to_string(file) {
        Ok(text) => serde_json::from_str(&text).map(Some).with_context(|| format!("read {}", file.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", file.display())),
    }
}

impl Run {
    fn measure(quick: bool) -> Result<Self> {
        Ok(Self {
            local: printed(Local::new(quick).measure()?),
            change: printed(Change::new().measure()?),
            scale: printed(Scale::new().measure()?),
            fleet: printed(Fleet::new().measure()?),
        })
    }

    fn parts(&self) -> [(&'static str, &dyn Measured); 4] {
        [("local", &self.local), ("change", &self.change), ("scale", &self.scale), ("fleet", &self.fleet)]
    }

    fn targets(&self) -> Vec<Target> {
        self.parts().into_iter().flat_map(|(_, part)| part.targets()).collect()
    }
}

fn printed<T: Measured>(report: T) -> T {
    println!("{report}");
    report
}

/// Returns the text of results.md.
fn text(runs: &[Run]) -> Result<String> {
    let links: Vec<_> = (1..=runs.len()).map(|nth| format!("[run {nth}](run-{nth}.json)")).collect();
    let mut text = format!("# Results\n\nMade by `cargo xtask bench report` of {}", links.join(", "));
    text +=
        ". [README.md](README.md) says what it means.\n\n## Targets\n\nIn bold what missed its target.\n\n| target |";
    (1..=runs.len()).try_for_each(|nth| write!(text, " run {nth} |"))?;
    text += "\n| --- |";
    text += &" --- |".repeat(runs.len());
    let columns: Vec<_> = runs.iter().map(Run::targets).collect();
    for (row, Target { what, .. }) in columns.first().into_iter().flatten().enumerate() {
        write!(text, "\n| {what} |")?;
        for column in &columns {
            match column.get(row).and_then(|it| it.measured.as_ref()) {
                Some((value, true)) => write!(text, " {value} |")?,
                Some((value, false)) => write!(text, " **{value}** |")?,
                None => text += " - |",
            }
        }
    }
    text += "\n";
    for (name, part) in runs.last().into_iter().flat_map(Run::parts) {
        write!(text, "\n## bench {name}, run {}\n\n```text\n{part}```\n", runs.len())?;
    }
    Ok(text)
}
