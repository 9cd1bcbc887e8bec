//! Output of measurements: to the terminal, and to files on request.

use std::{
    fmt::Display,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::Serialize;

/// The results of a run: a table, numbers and charts.
pub(crate) trait Measured: Display + Serialize {
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
