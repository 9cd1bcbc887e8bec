//! The kernel's own forwarders: address translation by nftables and iptables.

use std::fmt::Write as _;

use anyhow::Result;
use proxymatic_tests::process::Process;

use super::task::{Service, Task};
use crate::programs::program;

const NFTABLES: &str = include_str!("nftables.nft");
const IPTABLES: &str = include_str!("iptables.rules");

/// Timeout for loading a large set of rules.
const LOADING: std::time::Duration = std::time::Duration::from_secs(120);

/// Closed connections leave the table at once; otherwise this load would fill it within seconds, and new connections
/// would be dropped. Hosts with high rates set that too; it favours translation.
fn forget_soon(task: &Task<'_>) -> Result<()> {
    for time in ["tcp_timeout_time_wait", "tcp_timeout_close", "tcp_timeout_last_ack", "tcp_timeout_fin_wait"] {
        task.host.net().sysctl(&format!("net/netfilter/nf_conntrack_{time}"), "1")?;
    }
    Ok(())
}

fn protocol(service: &Service) -> &'static str {
    if service.udp { "udp" } else { "tcp" }
}

pub(super) fn nftables(task: &Task<'_>) -> Result<Vec<Process>> {
    let own = task.host.address();
    let mut text = format!("{NFTABLES}table ip services {{\n");
    let mut elements = Vec::with_capacity(task.services.len());
    for service in &task.services {
        let (kind, port) = (protocol(service), service.port);
        let of = service.backends.len();
        let place = |(nth, place): (usize, &u16)| format!("{nth} : {} . {place}", task.backend);
        let places = service.backends.iter().enumerate().map(place).collect::<Vec<_>>().join(", ");
        writeln!(text, "chain {kind}-{port} {{")?;
        writeln!(text, "meta l4proto {kind} dnat ip to numgen random mod {of} map {{ {places} }}")?;
        text += "}\n";
        elements.push(format!("{own} . {kind} . {port} : goto {kind}-{port}"));
    }
    let elements = elements.join(", ");
    text += "map ports {\ntype ipv4_addr . inet_proto . inet_service : verdict\n";
    writeln!(text, "elements = {{ {elements} }}\n}}")?;
    text += "chain output {\ntype nat hook output priority -100; policy accept;\n";
    text += "ip daddr . meta l4proto . th dport vmap @ports\n}\n}\n";
    let file = task.write("services.nft", &text)?;
    task.host.run(&program("nft")?, &["-f", &file], LOADING)?.well()?;
    forget_soon(task)?;
    Ok(Vec::new())
}

pub(super) fn iptables(task: &Task<'_>) -> Result<Vec<Process>> {
    let own = task.host.address();
    let mut chains = String::new();
    let mut rules = format!("-A OUTPUT -d {own} -j SERVICES\n");
    let mut draws = String::new();
    for service in &task.services {
        let (kind, port) = (protocol(service), service.port);
        writeln!(chains, ":{kind}-{port} - [0:0]")?;
        writeln!(rules, "-A SERVICES -p {kind} -m {kind} --dport {port} -j {kind}-{port}")?;
        for (nth, place) in service.backends.iter().enumerate() {
            let left = service.backends.len() - nth;
            write!(draws, "-A {kind}-{port} -p {kind} ")?;
            if left > 1 {
                write!(draws, "-m statistic --mode random --probability {:.10} ", 1.0 / left as f64)?;
            }
            writeln!(draws, "-j DNAT --to-destination {}:{place}", task.backend)?;
        }
    }
    let text = format!("{IPTABLES}*nat\n:OUTPUT ACCEPT [0:0]\n:SERVICES - [0:0]\n{chains}{rules}{draws}COMMIT\n");
    let file = task.write("services.rules", &text)?;
    task.host.run(&program("iptables-restore")?, &[&file], LOADING)?.well()?;
    forget_soon(task)?;
    Ok(Vec::new())
}
