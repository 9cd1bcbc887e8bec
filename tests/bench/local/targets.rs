//! The performance targets of this project, and whether it reached them.

use std::fmt;

use super::measurement::{self, LIMIT, Metric, Part};

const OURS: &str = "proxymatic";
const HAPROXY: &str = "haproxy";
const NFTABLES: &str = "nftables DNAT";

/// The least ratio of one row to another.
struct Target {
    what: &'static str,
    services: u16,
    metric: Metric,
    own: &'static str,
    other: &'static str,
    least: f64,
}

const fn target(what: &'static str, metric: Metric, other: &'static str, least: f64) -> Target {
    Target { what, services: 1, metric, own: OURS, other, least }
}

const TARGETS: [Target; 14] = [
    target("CRR, of no forwarder", Metric::Crr, LIMIT, 0.96),
    target("RR, of no forwarder", Metric::Rr, LIMIT, 0.99),
    target("bulk, of no forwarder", Metric::Bulk, LIMIT, 0.99),
    target("connected UDP, of no forwarder", Metric::Udp, LIMIT, 0.99),
    target("unconnected UDP, of no forwarder", Metric::UdpUnconnected, LIMIT, 0.93),
    target("CRR, times HAProxy", Metric::Crr, HAPROXY, 1.7),
    target("RR, times HAProxy", Metric::Rr, HAPROXY, 3.0),
    target("bulk, times HAProxy", Metric::Bulk, HAPROXY, 3.0),
    target("CRR, times nftables DNAT", Metric::Crr, NFTABLES, 1.0),
    target("RR, times nftables DNAT", Metric::Rr, NFTABLES, 1.05),
    target("connected UDP, times nftables DNAT", Metric::Udp, NFTABLES, 1.05),
    target("connected UDP, times Pen", Metric::Udp, "pen", 2.1),
    Target { services: 10_000, ..target("CRR, times nftables DNAT, 10,000 services", Metric::Crr, NFTABLES, 1.0) },
    Target { services: 10_000, ..target("CRR, 10,000 services of 1", Metric::Crr, "proxymatic, 1 service", 0.98) },
];

/// Returns each target with the measured value, if both rows were measured.
pub(super) fn show(parts: &[Part], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "\ntargets")?;
    for Target { what, services, metric, own, other, least } in TARGETS {
        let part = measurement::part(parts, services, 2);
        let Some(found) = part.and_then(|part| part.ratio(own, other, metric)) else {
            writeln!(f, "  {:<8} {what} >= {least}", "-")?;
            continue;
        };
        let verdict = if found.ratio >= least { "met" } else { "missed" };
        writeln!(f, "  {verdict:<8} {what} >= {least}: {:.3} (±{:.1} %)", found.ratio, found.spread)?;
    }
    Ok(())
}
