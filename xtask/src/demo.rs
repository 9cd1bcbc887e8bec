//! `cargo xtask demo`: a small cluster on this machine, in namespaces of its own.

use std::{ffi::OsString, process::Command};

use anyhow::Result;

use crate::{build_ebpf, command, progress::Steps, setup, workspace};

/// The steps before the demo can begin. On a new machine they take minutes.
const PACKAGES: &str = "packages that the demo needs";
const TOOLCHAIN: &str = "compiler and linker for BPF";
const OBJECTS: &str = "eBPF objects";
const PROGRAMS: &str = "programs";

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
        let mut steps = Steps::new("demo", &[PACKAGES, TOOLCHAIN, OBJECTS, PROGRAMS]);
        steps.step(PACKAGES, setup::tools)?;
        steps.step(TOOLCHAIN, setup::toolchain)?;
        steps.step(OBJECTS, build_ebpf::run)?;
        let build = || workspace::build_release(&["proxymatic-user", "marathon-sim", "proxymatic-tests"]);
        let binaries = steps.step(PROGRAMS, build)?;
        let mut demo = Command::new(binaries.join("proxymatic-demo"));
        demo.args(self.keep.then_some("--keep")).args(&self.args);
        command::exec(&mut demo).map(|never| match never {})
    }
}
