//! `proxymatic`: the agent and its command line.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    proxymatic_user::cli::main(std::env::args_os())
}
