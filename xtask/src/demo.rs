//! `cargo xtask demo`: a whole small cluster on this machine, in namespaces of its own.

use std::{ffi::OsString, process::Command};

use anyhow::Result;

use crate::{build_ebpf, command, setup, workspace};

/// Arguments of the task.
#[derive(clap::Args)]
pub(crate) struct Demo {
    /// Leave everything running at the end, to look around.
    #[arg(long)]
    keep: bool,
    /// Arguments for `proxymatic-demo`.
    #[arg(last = true)]
    args: Vec<OsString>,
}

impl Demo {
    pub(crate) fn run(&self) -> Result<()> {
        workspace::need_root("demo")?;
        setup::tools()?;
        build_ebpf::run()?;
        let binaries = workspace::build_release(&["proxymatic-user", "proxymatic-tests"])?;
        let mut demo = Command::new(binaries.join("proxymatic-demo"));
        demo.args(self.keep.then_some("--keep")).args(&self.args);
        command::exec(&mut demo).map(|never| match never {})
    }
}
