//! Prometheus metrics: the values of every metric, and the limit on series.

mod backends;
mod families;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, LabelSetEncoder, NoLabelSet,
        prometheus_text,
    },
    metrics::MetricType,
    registry::Registry,
};
use proxymatic_common::{ABI_VERSION, AgentState, RTT_STEPS_US, Reason};

pub(super) use prometheus_text::CONTENT_TYPE;

use self::{backends::Series, families::Family};
use super::{Overview, ProbeCounts, ServiceRow};
use crate::{agent::BUCKETS, dataplane::kernel::HOOKS};

/// The number of rejected connections to the status endpoint.
pub(super) type Rejected = Arc<AtomicU64>;

/// The largest number of backends with series of their own; the others of a service share `backend="other"`.
const MOST_BACKENDS: usize = 10_000;

/// Returns all metrics in Prometheus' text format 0.0.4.
pub(super) fn text(overview: &Arc<Overview>, rejected: &Rejected) -> String {
    let mut registry = Registry::default();
    registry
        .register_collector(Box::new(MetricsCollector { overview: Arc::clone(overview), rejected: rejected.clone() }));
    let mut text = String::new();
    // Cannot fail, because it writes to memory.
    let _ = prometheus_text::encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct MetricsCollector {
    overview: Arc<Overview>,
    rejected: Rejected,
}

impl Collector for MetricsCollector {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut out = Out(encoder);
        self.agent(&mut out)?;
        self.sources(&mut out)?;
        self.maps_and_hooks(&mut out)?;
        services(&mut out, &self.overview.services)?;
        let (series, folded) = backends::series(&self.overview.services, MOST_BACKENDS);
        backends(&mut out, &series)?;
        out.gauge(&families::BACKENDS_FOLDED, [(NO_LABELS, folded as u64)])
    }
}

/// No labels.
const NO_LABELS: [(&str, &str); 0] = [];

impl MetricsCollector {
    fn agent(&self, out: &mut Out<'_>) -> fmt::Result {
        let Overview { status, heartbeat, synced, took, .. } = &*self.overview;
        let version = [("version", env!("CARGO_PKG_VERSION").to_owned()), ("abi", ABI_VERSION.to_string())];
        out.gauge(&families::BUILD_INFO, [(version, 1_u64)])?;
        let agent = status.agent.as_ref();
        let states = [AgentState::INITIALIZING, AgentState::OK, AgentState::TERMINATING].map(AgentState::name);
        let is = |state: &str| agent.is_some_and(|agent| agent.state == state);
        out.gauge(&families::AGENT_STATE, states.map(|state| ([("state", state)], u64::from(is(state)))))?;
        out.gauge(&families::HEARTBEAT, [(NO_LABELS, heartbeat.as_secs_f64())])?;
        out.gauge(&families::SYNCED, synced.map(|synced| (NO_LABELS, synced.as_secs_f64())))?;
        let refused = agent.is_some_and(|agent| agent.refused.is_some());
        out.gauge(&families::WRITE_REFUSED, [(NO_LABELS, u64::from(refused))])?;
        out.gauge(&families::WARNINGS, [(NO_LABELS, status.warnings.len() as u64)])?;
        out.gauge(&families::PROBLEMS, [(NO_LABELS, status.problems.len() as u64)])?;
        out.gauge(&families::SCRAPE, [(NO_LABELS, took.as_secs_f64())])?;
        out.counter(&families::HTTP_REJECTED, [(NO_LABELS, self.rejected.load(Ordering::Relaxed))])?;
        let published = agent.map(|agent| agent.published).unwrap_or_default();
        let counts = agent.map(|agent| agent.first_probes).unwrap_or_default();
        let ProbeCounts { answered, refused, unanswered, failed } = counts;
        let results = [("answered", answered), ("refused", refused), ("unanswered", unanswered), ("failed", failed)];
        out.counter(&families::FIRST_PROBES, results.map(|(result, count)| ([("result", result)], count)))?;
        out.gauge(&families::AWAITED, [(NO_LABELS, agent.map_or(0, |agent| agent.awaited_count))])?;
        let longer = published.count - published.steps.iter().sum::<u64>();
        let steps = BUCKETS.into_iter().zip(published.steps).chain([(f64::INFINITY, longer)]);
        let mut histogram = out.begin(&families::PUBLISH)?;
        histogram.encode_histogram::<NoLabelSet>(published.sum, published.count, &steps.collect::<Vec<_>>(), None)
    }

    fn sources(&self, out: &mut Out<'_>) -> fmt::Result {
        let sources = || self.overview.status.agent.iter().flat_map(|agent| &agent.sources);
        let of = |source: &str| [("source", source.to_owned())];
        let ages = sources().filter_map(|it| Some((of(&it.source), it.answered_s?)));
        out.gauge(&families::SOURCE_AGE, ages)?;
        out.gauge(&families::SOURCE_TROUBLE, sources().map(|it| (of(&it.source), u64::from(it.trouble.is_some()))))?;
        out.counter(&families::SOURCE_FAILURES, sources().map(|it| (of(&it.source), it.failures)))
    }

    fn maps_and_hooks(&self, out: &mut Out<'_>) -> fmt::Result {
        let Overview { status, hooks, .. } = &*self.overview;
        out.gauge(&families::MAP_ENTRIES, status.maps.iter().map(|it| ([("map", it.map)], it.used as u64)))?;
        out.gauge(&families::MAP_MAX, status.maps.iter().map(|it| ([("map", it.map)], u64::from(it.entries))))?;
        let there = |hook: &str| hooks.iter().any(|row| row.hook == hook);
        let on_cgroup = HOOKS.iter().map(|hook| (vec![("hook", *hook)], u64::from(there(hook))));
        let on_interfaces = hooks.iter().filter_map(|row| {
            let interface = row.interface.as_deref()?;
            Some((vec![("hook", row.hook), ("interface", interface)], u64::from(row.effective == Some(true))))
        });
        out.gauge(&families::HOOK_ATTACHED, on_cgroup.chain(on_interfaces))?;
        // All interfaces run the same program, and the kernel counts its runs on all of them together.
        let programs: BTreeMap<_, _> = hooks.iter().map(|row| (row.hook, row)).collect();
        out.counter(&families::HOOK_RUNS, programs.values().map(|row| ([("hook", row.hook)], row.runs)))?;
        let time = |mean: Option<f64>, runs: u64| mean.unwrap_or(0.0) * runs as f64 / 1e9;
        let times = programs.values().map(|row| ([("hook", row.hook)], time(row.mean_ns, row.runs)));
        out.counter(&families::HOOK_TIME, times)?;
        let verdicts = status.verdicts.iter().map(|(reason, count)| ([("reason", *reason)], *count));
        out.counter(&families::VERDICTS, verdicts)?;
        let remote = status.agent.as_ref().and_then(|agent| agent.remote_connections);
        out.gauge(&families::REMOTE_CONNECTIONS, remote.map(|remote| (NO_LABELS, remote)))
    }
}

fn services(out: &mut Out<'_>, rows: &[ServiceRow]) -> fmt::Result {
    out.gauge(&families::SERVICES, [(NO_LABELS, rows.len() as u64)])?;
    let of = |row| Labels { service: row, more: [] };
    let states = rows.iter().flat_map(|row| {
        let count = |state: &str| row.backends.iter().filter(|backend| backend.state == state).count() as u64;
        ["active", "warming", "draining", "ejected", "full"].into_iter().filter_map(move |state| {
            // The state active is always present, so that 0 is visible.
            let is_shown = count(state) > 0 || state == "active";
            is_shown.then(|| (Labels { service: row, more: [("state", state)] }, count(state)))
        })
    });
    out.gauge(&families::SERVICE_BACKENDS, states)?;
    out.counter(&families::SERVICE_CONNECTIONS, rows.iter().map(|row| (of(row), row.counts.opened)))?;
    out.gauge(&families::SERVICE_OPEN, rows.iter().map(|row| (of(row), row.counts.open)))?;
    let refusals = rows.iter().flat_map(|row| {
        let refused = move |reason: &Reason| {
            let count = row.counts.refused[reason.refusal()?];
            (count > 0).then(|| (Labels { service: row, more: [("reason", reason.name())] }, count))
        };
        Reason::ALL.iter().filter_map(refused)
    });
    out.counter(&families::SERVICE_REFUSED, refusals)
}

fn backends(out: &mut Out<'_>, series: &[Series<'_>]) -> fmt::Result {
    fn of<'a>(it: &'a Series<'_>) -> Labels<'a, 1> {
        Labels { service: it.service, more: [("backend", &it.backend)] }
    }
    out.counter(&families::BACKEND_CONNECTIONS, series.iter().map(|it| (of(it), it.total)))?;
    out.gauge(&families::BACKEND_OPEN, series.iter().map(|it| (of(it), it.active)))?;
    out.counter(&families::BACKEND_ESTABLISHED, series.iter().map(|it| (of(it), it.established)))?;
    out.counter(&families::BACKEND_FAILURES, series.iter().map(|it| (of(it), it.failed)))?;
    out.gauge(&families::BACKEND_ELIGIBLE, series.iter().map(|it| (of(it), it.eligible)))?;
    let measured = series.iter().filter(|it| it.rtt_us > 0);
    out.gauge(&families::BACKEND_RTT, measured.map(|it| (of(it), it.rtt_us as f64 / 1e6)))?;
    let mut encoder = out.begin(&families::BACKEND_HANDSHAKE)?;
    let bounds = RTT_STEPS_US.map(|us| f64::from(us) / 1e6).into_iter().chain([f64::INFINITY]);
    series.iter().filter(|it| it.rtts.count() > 0).try_for_each(|it| {
        let steps: Vec<_> = bounds.clone().zip(it.rtts.steps).collect();
        let sum = it.rtts.sum_us as f64 / 1e6;
        encoder.encode_family(&of(it))?.encode_histogram::<NoLabelSet>(sum, it.rtts.count(), &steps, None)
    })
}

/// The labels of a service, and more labels after them.
#[derive(Debug)]
struct Labels<'a, const N: usize> {
    service: &'a ServiceRow,
    more: [(&'static str, &'a str); N],
}

impl<const N: usize> EncodeLabelSet for Labels<'_, N> {
    fn encode(&self, encoder: &mut LabelSetEncoder) -> fmt::Result {
        let row = self.service;
        let first = [("service", row.name.as_str()), ("protocol", row.protocol)];
        EncodeLabelSet::encode(&first, encoder)?;
        EncodeLabelSet::encode(&[("port", row.port)], encoder)?;
        if let Some(address) = row.address {
            EncodeLabelSet::encode(&[("address", address.to_string())], encoder)?;
        }
        EncodeLabelSet::encode(&self.more, encoder)
    }
}

/// Writes one metric family at a time.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn begin(&mut self, family: &Family) -> Result<prometheus_client::encoding::MetricEncoder<'_>, fmt::Error> {
        self.0.encode_descriptor(family.name, family.help, None, family.kind)
    }

    fn gauge<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        family: &Family,
        samples: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        debug_assert!(matches!(family.kind, MetricType::Gauge), "{}", family.name);
        let mut encoder = self.begin(family)?;
        samples.into_iter().try_for_each(|(labels, value)| encoder.encode_family(&labels)?.encode_gauge(&value))
    }

    fn counter<L: EncodeLabelSet, V: EncodeCounterValue>(
        &mut self,
        family: &Family,
        samples: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        debug_assert!(matches!(family.kind, MetricType::Counter), "{}", family.name);
        let mut encoder = self.begin(family)?;
        samples.into_iter().try_for_each(|(labels, value)| {
            encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }
}

#[cfg(test)]
mod tests;
