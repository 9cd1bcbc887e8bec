//! `cargo xtask bench NAME`: measurements, as commands rather than as timed tests.

use std::{ffi::OsString, process::Command};

use anyhow::Result;

use crate::{build_ebpf, command, setup, workspace};

/// Arguments of the task.
#[derive(clap::Args)]
pub(crate) struct Bench {
    /// What to measure, and its arguments: `cargo xtask bench --help` after a build lists what there is.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    args: Vec<OsString>,
}

impl Bench {
    pub(crate) fn run(&self) -> Result<()> {
        workspace::need_root("bench")?;
        setup::tools()?;
        build_ebpf::run()?;
        let binaries = workspace::build_release(&["proxymatic-user", "proxymatic-tests"])?;
        command::exec(Command::new(binaries.join("proxymatic-bench")).args(&self.args)).map(|never| match never {})
    }
}
