//! Where what was measured goes: to the terminal, and into files where they are asked for.

use std::{
    fmt::Display,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::Serialize;

/// What a run has measured: a table, numbers and charts.
pub(crate) trait Measured: Display + Serialize {
    /// Draws its charts into a folder that is there.
    fn draw(&self, folder: &Path) -> Result<()>;
}

/// Files beside the terminal.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Output {
    /// Write everything that was measured, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draw charts into this folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) svg: Option<PathBuf>,
}

impl Output {
    /// Prints a report, and writes it where that was asked for.
    pub(crate) fn put(&self, report: &impl Measured) -> Result<()> {
        print!("{report}");
        if let Some(file) = &self.json {
            let text = serde_json::to_string_pretty(report)? + "\n";
            fs::write(file, text).with_context(|| format!("write {}", file.display()))?;
        }
        if let Some(folder) = &self.svg {
            fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
            report.draw(folder)?;
        }
        Ok(())
    }
}
