//! The performance targets of this project, and whether it reached them.

use super::measurement::{self, LIMIT, Metric, Part};
use crate::output::Target;

const OURS: &str = "proxymatic";
const HAPROXY: &str = "haproxy";
const NFTABLES: &str = "nftables DNAT";

/// The least ratio of one row to another.
struct Goal {
    what: &'static str,
    services: u16,
    metric: Metric,
    own: &'static str,
    other: &'static str,
    least: f64,
}

const fn goal(what: &'static str, metric: Metric, other: &'static str, least: f64) -> Goal {
    Goal { what, services: 1, metric, own: OURS, other, least }
}

const GOALS: [Goal; 14] = [
    goal("CRR, of no forwarder", Metric::Crr, LIMIT, 0.96),
    goal("RR, of no forwarder", Metric::Rr, LIMIT, 0.99),
    goal("bulk, of no forwarder", Metric::Bulk, LIMIT, 0.99),
    goal("connected UDP, of no forwarder", Metric::Udp, LIMIT, 0.99),
    goal("unconnected UDP, of no forwarder", Metric::UdpUnconnected, LIMIT, 0.93),
    goal("CRR, times HAProxy", Metric::Crr, HAPROXY, 1.7),
    goal("RR, times HAProxy", Metric::Rr, HAPROXY, 3.0),
    goal("bulk, times HAProxy", Metric::Bulk, HAPROXY, 3.0),
    goal("CRR, times nftables DNAT", Metric::Crr, NFTABLES, 1.0),
    goal("RR, times nftables DNAT", Metric::Rr, NFTABLES, 1.05),
    goal("connected UDP, times nftables DNAT", Metric::Udp, NFTABLES, 1.05),
    goal("connected UDP, times Pen", Metric::Udp, "pen", 2.1),
    Goal { services: 10_000, ..goal("CRR, times nftables DNAT, 10,000 services", Metric::Crr, NFTABLES, 1.0) },
    Goal { services: 10_000, ..goal("CRR, 10,000 services of 1", Metric::Crr, "proxymatic, 1 service", 0.98) },
];

/// Returns each target, with the measured ratio if both rows were measured.
pub(super) fn targets(parts: &[Part]) -> Vec<Target> {
    let target = |Goal { what, services, metric, own, other, least }| {
        let ratio = measurement::part(parts, services, 2).and_then(|part| part.ratio(own, other, metric));
        let measured = ratio.map(|it| (format!("{:.3} (±{:.1} %)", it.ratio, it.spread), it.ratio >= least));
        Target { what: format!("{what} >= {least}"), measured }
    };
    GOALS.map(target).into()
}
