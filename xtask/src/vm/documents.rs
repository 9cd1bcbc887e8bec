//! Keeps the record of the last run on each kernel in docs/kernels.json. docs/kernels.md is made of it, so that one
//! kernel can run again without the others.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{kernels::KERNELS, record::Record, report, run::Run};
use crate::{command, workspace};

/// Replaces the record of the run's kernel, and writes the document. A kernel without a place in the document is
/// ignored.
pub(super) fn keep(run: Run) -> Result<()> {
    let Some(series) = run.kernel.series() else { return Ok(()) };
    let (kept, document) = paths(workspace::root());
    let mut records = read(&kept)?;
    records.retain(|record| record.series != series);
    records.push(Record {
        series: series.to_owned(),
        package: run.kernel.version,
        accelerator: run.accelerator.name().to_owned(),
        seconds: run.took.as_secs_f64().round(),
        commit: commit(),
        outcome: run.outcome,
    });
    records.sort_by_key(|record| KERNELS.iter().position(|series| *series == record.series));
    let json = serde_json::to_string_pretty(&records)? + "\n";
    fs::write(&kept, json).with_context(|| format!("cannot write {}", kept.display()))?;
    fs::write(&document, report::document(&records)).with_context(|| format!("cannot write {}", document.display()))?;
    println!("wrote {}", document.display());
    Ok(())
}

fn paths(root: &Path) -> (PathBuf, PathBuf) {
    (root.join("docs/kernels.json"), root.join("docs/kernels.md"))
}

fn read(kept: &Path) -> Result<Vec<Record>> {
    match fs::read(kept) {
        Ok(json) => serde_json::from_slice(&json).with_context(|| format!("cannot read {}", kept.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", kept.display())),
    }
}

/// Returns git's name of the checkout, with `-dirty` after a change; empty without git.
fn commit() -> String {
    let git = |arguments: &[&str]| command::ask(Command::new("git").args(arguments).current_dir(workspace::root()));
    // Without the files that this task itself writes for earlier kernels.
    let changed = ["status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/kernels.*"];
    let dirty = git(&changed).is_some_and(|said| !said.trim().is_empty());
    git(&["describe", "--always"])
        .map_or_else(String::new, |said| format!("{}{}", said.trim(), if dirty { "-dirty" } else { "" }))
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    #[test]
    fn kernels_document_equals_its_records() {
        let (kept, document) = paths(workspace::root());
        let records = read(&kept).unwrap();
        // Before the first run there is no record.
        let wanted = if records.is_empty() { String::new() } else { report::document(&records) };
        if env::var_os("UPDATE_EXPECT").is_some() && !records.is_empty() {
            fs::write(&document, &wanted).unwrap();
        }
        let written = fs::read_to_string(document).unwrap_or_default();
        assert_eq!(written, wanted, "`cargo xtask test vm` writes both, UPDATE_EXPECT=1 one from the other");
    }
}
