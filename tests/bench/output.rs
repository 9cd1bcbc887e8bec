//! Output of measurements: to the terminal, and to files on request.

use std::{
    fmt::{self, Display},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::Serialize;

/// A performance target of this project, and whether it was reached.
pub(crate) struct Target {
    /// The quantity and its bound.
    pub(crate) what: String,
    /// The measured value, and whether it is within the bound; `None` if it was not measured.
    pub(crate) measured: Option<(String, bool)>,
}

/// Lists targets at the end of a report.
pub(crate) fn list(targets: &[Target], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "\ntargets")?;
    for Target { what, measured } in targets {
        match measured {
            None => writeln!(f, "  {:<8} {what}", "-")?,
            Some((value, is_met)) => writeln!(f, "  {:<8} {what}: {value}", if *is_met { "met" } else { "missed" })?,
        }
    }
    Ok(())
}

/// The results of a run: a table, numbers, targets and charts.
pub(crate) trait Measured: Display {
    /// Returns the targets of this benchmark.
    fn targets(&self) -> Vec<Target>;

    /// Draws its charts into an existing folder.
    fn draw(&self, folder: &Path) -> Result<()>;
}

/// Output files in addition to the terminal.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Output {
    /// Write all measurements as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draw charts into this folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) svg: Option<PathBuf>,
}

impl Output {
    /// Prints a report, and writes it to the requested files.
    pub(crate) fn put(&self, report: &(impl Measured + Serialize)) -> Result<()> {
        print!("{report}");
        if let Some(file) = &self.json {
            write_json(file, report)?;
        }
        if let Some(folder) = &self.svg {
            fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
            report.draw(folder)?;
        }
        Ok(())
    }
}

/// Writes a value as JSON.
pub(crate) fn write_json(file: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value)? + "\n";
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}
