//! Measurements of the data plane, as commands: `cargo xtask bench NAME`. Ratios within one run, interleaved, medians.

#![expect(clippy::print_stdout, reason = "what was measured is this program's output")]

mod absence;
mod all;
mod answer;
mod change;
mod chart;
mod connect_loop;
mod fleet;
mod hooks;
mod load;
mod local;
mod machine;
mod output;
mod peers;
mod planning;
mod programs;
mod remote;
mod scale;
mod services;
mod sources;
mod statistics;
mod surface;
mod syscall_loop;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measurements of the data plane.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask bench")]
struct Cli {
    /// The argument that cargo passes to every benchmark.
    #[arg(long, hide = true, global = true)]
    bench: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Comparison with no forwarder, HAProxy, Pen, nginx, nftables and iptables.
    Local(local::Local),
    /// The mean run time of the connect program with one service and with many.
    Services(services::Services),
    /// The cost of the hooks per call: for each policy, for few and many services and backends.
    Hooks(hooks::Hooks),
    /// The time of a plan on large tables. Needs neither root nor a kernel.
    Plan(planning::Planning),
    /// The time from Marathon's answers and events to the maps, on a large cluster.
    Sources(sources::Sources),
    /// The time of commands and of the endpoint with many services, and their effect on connects.
    Surface(surface::Surface),
    /// Packets and connections per second through a host, against netfilter, HAProxy and no forwarding.
    Remote(remote::Remote),
    /// From an event of Marathon to connections: with HAProxy and Pen as meltwater/proxymatic reloads them.
    Change(change::Change),
    /// Sync time, memory and event latency, as the cluster grows.
    Scale(scale::Scale),
    /// What a Marathon's leader sees of 10 to 10,000 agents.
    Fleet(fleet::Fleet),
    /// From Marathon's return to the first served change, after absences of 10 s, 2 min and 20 min.
    Absence(absence::Absence),
    /// All of `local`, `change`, `scale` and `fleet`, several times, written as docs/bench has it.
    All(all::All),
    /// The report on the runs of `all`, made from their JSON. Needs neither root nor a kernel.
    Report(all::Report),
    /// Run by `scale` for each size.
    #[command(hide = true)]
    Sync(scale::FullSync),
    /// Run by `change` in place of meltwater/proxymatic.
    #[command(hide = true)]
    OldProxymatic(change::OldProxymatic),
    /// Run by `change` to measure changes.
    #[command(hide = true)]
    Probe(change::Probe),
    /// The backends of benchmarks.
    #[command(hide = true)]
    Answer(answer::Answer),
    /// The clients of benchmarks.
    #[command(hide = true)]
    Load(load::Load),
    /// Run by `services` on a host: connects in a loop.
    #[command(hide = true)]
    ConnectLoop(connect_loop::ConnectLoop),
    /// Run by `hooks` in each cgroup: repeats one system call.
    #[command(hide = true)]
    SyscallLoop(syscall_loop::SyscallLoop),
    /// Run by `remote` on the clients' host.
    #[command(hide = true)]
    Pour(remote::Pour),
    /// Run by `remote` on the clients' host.
    #[command(hide = true)]
    Call(remote::Call),
    /// Run by `remote` on the servers' host.
    #[command(hide = true)]
    Reply(remote::Answer),
}

fn main() -> Result<()> {
    // cargo starts it in the folder of its package; file names on the command line are relative to the workspace.
    std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))?;
    match Cli::parse().what {
        What::Local(bench) => bench.run(),
        What::Change(bench) => bench.run(),
        What::Scale(bench) => bench.run(),
        What::Fleet(bench) => bench.run(),
        What::Absence(bench) => bench.run(),
        What::All(bench) => bench.run(),
        What::Report(report) => report.run(),
        What::Sync(sync) => sync.run(),
        What::OldProxymatic(it) => it.run(),
        What::Probe(probe) => probe.run(),
        What::Answer(answer) => answer.run(),
        What::Load(load) => load.run(),
        What::Services(bench) => bench.run(),
        What::Plan(bench) => bench.run(),
        What::Sources(bench) => bench.run(),
        What::Surface(bench) => bench.run(),
        What::ConnectLoop(it) => it.run(),
        What::Hooks(bench) => bench.run(),
        What::SyscallLoop(syscall_loop) => syscall_loop.run(),
        What::Remote(bench) => bench.run(),
        What::Pour(it) => it.run(),
        What::Call(it) => it.run(),
        What::Reply(it) => it.run(),
    }
}
