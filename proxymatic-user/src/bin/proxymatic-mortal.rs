//! The agent and the command line with faults that tests inject; see the feature `fault-injection`.

use std::process::ExitCode;

fn main() -> ExitCode {
    proxymatic_user::cli::main(std::env::args_os())
}
