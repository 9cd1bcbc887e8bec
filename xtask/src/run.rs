//! `cargo xtask run -- ARGS`: the agent, built from this checkout.

use std::{ffi::OsString, process::Command};

use anyhow::Result;

use crate::{build_ebpf, command, workspace};

/// Arguments of the task.
#[derive(clap::Args)]
pub(crate) struct Run {
    /// Arguments for `proxymatic run`.
    #[arg(last = true)]
    args: Vec<OsString>,
}

impl Run {
    pub(crate) fn run(&self) -> Result<()> {
        build_ebpf::run()?;
        let binaries = workspace::build_release(&["proxymatic-user"])?;
        let mut agent = Command::new(binaries.join("proxymatic"));
        command::exec(agent.arg("run").args(&self.args)).map(|never| match never {})
    }
}
