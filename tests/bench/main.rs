//! Measurements of the data plane, as commands: `cargo xtask bench NAME`. Ratios within one run, interleaved, medians.

#![expect(clippy::print_stdout, reason = "what was measured is this program's output")]

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
    /// What cargo says to every benchmark.
    #[arg(long, hide = true, global = true)]
    bench: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Side by side with no forwarder, HAProxy, Pen, nginx, nftables, iptables and IPVS.
    Local(local::Local),
    /// The mean run time of the connect program with one service and with many.
    Services(services::Services),
    /// What the hooks cost each call: for each policy, for few and many services and backends.
    Hooks(hooks::Hooks),
    /// What a plan costs, on large tables. Needs neither root nor a kernel.
    Plan(planning::Planning),
    /// How long Marathon's answers and events take to reach the maps, on a large cluster.
    Sources(sources::Sources),
    /// What it costs to look at many services, and whether connects notice.
    Surface(surface::Surface),
    /// Packets and connections per second through a host, against netfilter, HAProxy and no forwarding.
    Remote(remote::Remote),
    /// From an event of Marathon to connections: with HAProxy and Pen as meltwater/proxymatic reloads them.
    Change(change::Change),
    /// Sync time, memory and event latency, as the cluster grows.
    Scale(scale::Scale),
    /// What a Marathon's leader sees of 10 to 10,000 agents.
    Fleet(fleet::Fleet),
    /// All of `local`, `change`, `scale` and `fleet`, several times, written where the documents have it.
    All(all::All),
    /// What `scale` runs for each size.
    #[command(hide = true)]
    Sync(scale::FullSync),
    /// What `change` runs in the place of meltwater/proxymatic.
    #[command(hide = true)]
    OldProxymatic(change::OldProxymatic),
    /// What `change` watches changes by.
    #[command(hide = true)]
    Probe(change::Probe),
    /// What benchmarks run as backends.
    #[command(hide = true)]
    Answer(answer::Answer),
    /// What benchmarks run as clients.
    #[command(hide = true)]
    Load(load::Load),
    /// What `services` runs on a host: connects in a loop.
    #[command(hide = true)]
    ConnectLoop(connect_loop::ConnectLoop),
    /// What `hooks` runs in each cgroup: one system call over and over.
    #[command(hide = true)]
    SyscallLoop(syscall_loop::SyscallLoop),
    /// What `remote` runs where the clients are.
    #[command(hide = true)]
    Pour(remote::Pour),
    /// The same.
    #[command(hide = true)]
    Call(remote::Call),
    /// What `remote` runs where the servers are.
    #[command(hide = true)]
    Reply(remote::Answer),
}

fn main() -> Result<()> {
    // cargo starts it in the folder of its package; files that are named are meant from the workspace's.
    std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))?;
    match Cli::parse().what {
        What::Local(bench) => bench.run(),
        What::Change(bench) => bench.run(),
        What::Scale(bench) => bench.run(),
        What::Fleet(bench) => bench.run(),
        What::All(bench) => bench.run(),
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
