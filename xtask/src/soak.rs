//! `cargo xtask soak`: random changes of a cluster under load, on this machine, in namespaces of its own.

use std::process::Command;

use anyhow::Result;

use crate::{build_ebpf, command, setup, workspace};

/// Arguments of the task.
#[derive(clap::Args)]
pub(crate) struct Soak {
    /// Duration in minutes.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Seed of the changes; random by default.
    #[arg(long)]
    seed: Option<u64>,
}

impl Soak {
    pub(crate) fn run(&self) -> Result<()> {
        workspace::need_root("soak")?;
        setup::tools()?;
        build_ebpf::run()?;
        let binaries = workspace::build_release(&["proxymatic-user", "marathon-sim", "proxymatic-tests"])?;
        let mut soak = Command::new(binaries.join("proxymatic-soak"));
        soak.args(["--minutes", &self.minutes.to_string()]);
        if let Some(seed) = self.seed {
            soak.args(["--seed", &seed.to_string()]);
        }
        command::exec(&mut soak).map(|never| match never {})
    }
}
