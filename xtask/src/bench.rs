//! `cargo xtask bench NAME`: measurements, as commands and not as timed tests.

use std::ffi::OsString;

use anyhow::Result;

use crate::{
    build_ebpf, command, setup,
    workspace::{self, cargo},
};

/// Arguments of the task.
#[derive(clap::Args)]
pub(crate) struct Bench {
    /// The benchmark and its arguments: `cargo xtask bench help` lists all.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    args: Vec<OsString>,
}

impl Bench {
    pub(crate) fn run(&self) -> Result<()> {
        workspace::need_root("bench")?;
        setup::tools()?;
        if self.args.first().is_some_and(|it| it == "remote") {
            setup::remote_peers()?;
        }
        if self.args.iter().any(|it| matches!(it.to_str(), Some("local" | "change" | "all"))) {
            setup::load()?;
        }
        // The peers are installed on request only: a measurement must not install six forwarders on a host.
        if self.args.iter().any(|it| it == "--install") {
            setup::peers()?;
        }
        build_ebpf::run()?;
        let binaries = workspace::build_release(&["proxymatic-user", "marathon-sim", "proxymatic-tests"])?;
        let mut bench = cargo();
        bench.args(["bench", "--quiet", "-p", "proxymatic-tests", "--bench", "measure", "--"]).args(&self.args);
        command::run(bench.env("PROXYMATIC_BIN_DIR", binaries))
    }
}
