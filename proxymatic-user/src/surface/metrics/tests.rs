//! The metrics: their names, the number of series, and the text format.

use std::collections::BTreeSet;

use super::*;
use crate::surface::{BackendRow, RoundTrips, fixtures};

const DOCUMENT: &str = include_str!("../../../../docs/operating.md");

fn encoded(rows: Vec<ServiceRow>) -> String {
    text(&Arc::new(fixtures::overview(rows)), &Rejected::default())
}

fn full_name(family: &Family) -> String {
    let suffix = if matches!(family.kind, MetricType::Counter) { "_total" } else { "" };
    format!("{}{suffix}", family.name)
}

#[test]
fn every_metric_appears_once_with_its_help() {
    let text = encoded(vec![fixtures::service("/web", 1234, &["active", "ejected"])]);
    let written: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' ')).collect();
    let known: Vec<_> = families::ALL.iter().map(|family| (full_name(family), family.help)).collect();
    assert_eq!(
        written.iter().copied().collect::<BTreeSet<_>>(),
        known.iter().map(|(name, help)| (name.as_str(), *help)).collect()
    );
    assert_eq!(written.len(), families::ALL.len());
    // A service and a backend have all metrics; only a measured value may be absent.
    for (name, _) in &known {
        assert!([" ", "{", "_count ", "_count{"].iter().any(|end| text.contains(&format!("\n{name}{end}"))), "{name}");
    }
}

#[test]
fn document_lists_exactly_the_existing_metrics() {
    let documented: BTreeSet<_> = DOCUMENT
        .lines()
        .filter_map(|line| line.strip_prefix("| `proxymatic_")?.split_once('`'))
        .map(|(name, _)| format!("proxymatic_{name}"))
        .collect();
    assert_eq!(documented, families::ALL.iter().map(full_name).collect());
}

#[test]
fn ejected_backend_is_not_eligible_and_unmeasured_has_no_rtt() {
    let mut service = fixtures::service("/web", 1234, &["active", "ejected"]);
    service.backends[1].rtt_us = 0;
    let text = encoded(vec![service]);
    let labels =
        |backend| format!("{{service=\"/web\",protocol=\"tcp\",port=\"1234\",backend=\"10.0.0.{backend}:31000\"}}");
    assert!(text.contains(&format!("proxymatic_backend_eligible{} 1\n", labels(0))), "{text}");
    assert!(text.contains(&format!("proxymatic_backend_eligible{} 0\n", labels(1))), "{text}");
    assert!(text.contains(&format!("proxymatic_backend_rtt_seconds{} 0.00025\n", labels(0))), "{text}");
    assert!(!text.contains(&format!("proxymatic_backend_rtt_seconds{}", labels(1))), "{text}");
    assert!(text.contains("proxymatic_service_refused_total{service=\"/web\",protocol=\"tcp\",port=\"1234\",reason=\"no_backend\"} 3\n"), "{text}");
}

#[test]
fn histogram_is_cumulative_and_absent_if_unmeasured() {
    let mut service = fixtures::service("/web", 1234, &["active", "active"]);
    service.backends[1].rtts = RoundTrips::default();
    let text = encoded(vec![service]);
    let lines: Vec<_> =
        text.lines().filter_map(|line| line.strip_prefix("proxymatic_backend_handshake_seconds_")).collect();
    let counts: Vec<_> = lines.iter().filter_map(|line| line.rsplit_once(' ')).map(|(_, count)| count).collect();
    assert_eq!(counts, ["0", "4", "4", "4", "4", "4", "5", "0.201", "5"], "{lines:?}");
    assert!(lines[1].contains(r#"backend="10.0.0.0:31000",le="0.0004"}"#), "{lines:?}");
}

#[test]
fn hostile_name_stays_within_its_label() {
    let text = encoded(vec![fixtures::service("/a\"} 1\nx{b=\"\\", 1234, &["active"])]);
    assert!(text.contains(r#"{service="/a\"} 1\nx{b=\"\\",protocol="tcp""#), "{text}");
    assert!(text.lines().all(|line| line.starts_with("# ") || line.starts_with("proxymatic_")), "{text}");
}

#[test]
fn two_tasks_with_one_address_share_a_series() {
    let mut service = fixtures::service("/web", 1234, &["active", "draining", "active"]);
    service.backends[1].address = service.backends[0].address;
    let rows = [service];
    let (series, folded) = backends::series(&rows, 10);
    let values: Vec<_> = series.iter().map(|it| (it.backend.as_str(), it.total, it.eligible)).collect();
    assert_eq!((values, folded), (vec![("10.0.0.0:31000", 14, 1), ("10.0.0.2:31000", 7, 1)], 0));
}

#[test]
fn backends_beyond_the_limit_share_a_series_of_their_service() {
    let rows: Vec<_> =
        (0..4).map(|nth| fixtures::service(&format!("/{nth}"), 1234 + nth, &["active", "full", "active"])).collect();
    let sum = |of: fn(&BackendRow) -> u64| rows.iter().flat_map(|row| &row.backends).map(of).sum::<u64>();
    for most in 0..=13 {
        let (series, folded) = backends::series(&rows, most);
        assert_eq!(folded, 12_usize.saturating_sub(most));
        assert!(series.len() <= most + rows.len(), "{} series", series.len());
        assert_eq!(series.iter().map(|it| it.total).sum::<u64>(), sum(|row| row.total));
        assert_eq!(series.iter().map(|it| it.eligible).sum::<u64>(), 8);
        let others = series.iter().filter(|it| it.backend == "other");
        assert!(others.clone().map(|it| &it.service.name).collect::<BTreeSet<_>>().len() == others.count());
    }
}
