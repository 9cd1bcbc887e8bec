//! `proxymatic`: the agent and its command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    proxymatic_user::cli::main(std::env::args_os())
}
