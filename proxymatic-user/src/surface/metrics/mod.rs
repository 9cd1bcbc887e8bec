//! What Prometheus is told: every metric by name, and how many series there may be.

mod backends;
mod families;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, atomic::Ordering},
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
use super::{Overview, ServiceRow, http::Rejected};
use crate::{agent::BUCKETS, dataplane::kernel::HOOKS};

/// The most backends that have series of their own; of the rest each service has one row, `backend="other"`.
const MOST_BACKENDS: usize = 10_000;

/// All metrics, in Prometheus' text format 0.0.4.
pub(super) fn text(seen: &Arc<Overview>, rejected: &Rejected) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Told { seen: Arc::clone(seen), rejected: rejected.clone() }));
    let mut text = String::new();
    // Nothing in here can fail: it is written to memory.
    let _ = prometheus_text::encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct Told {
    seen: Arc<Overview>,
    rejected: Rejected,
}

impl Collector for Told {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut out = Out(encoder);
        self.agent(&mut out)?;
        self.sources(&mut out)?;
        self.maps_and_hooks(&mut out)?;
        services(&mut out, &self.seen.services)?;
        let (series, folded) = backends::series(&self.seen.services, MOST_BACKENDS);
        backends(&mut out, &series)?;
        out.gauge(&families::BACKENDS_FOLDED, [(ALONE, folded as u64)])
    }
}

/// No labels.
const ALONE: [(&str, &str); 0] = [];

impl Told {
    fn agent(&self, out: &mut Out<'_>) -> fmt::Result {
        let Overview { status, heartbeat, synced, took, .. } = &*self.seen;
        let version = [("version", env!("CARGO_PKG_VERSION").to_owned()), ("abi", ABI_VERSION.to_string())];
        out.gauge(&families::BUILD_INFO, [(version, 1_u64)])?;
        let agent = status.agent.as_ref();
        let states = [AgentState::INITIALIZING, AgentState::OK, AgentState::TERMINATING].map(AgentState::name);
        let is = |state: &str| agent.is_some_and(|agent| agent.state == state);
        out.gauge(&families::AGENT_STATE, states.map(|state| ([("state", state)], u64::from(is(state)))))?;
        out.gauge(&families::HEARTBEAT, [(ALONE, heartbeat.as_secs_f64())])?;
        out.gauge(&families::SYNCED, synced.map(|synced| (ALONE, synced.as_secs_f64())))?;
        let refused = agent.is_some_and(|agent| agent.refused.is_some());
        out.gauge(&families::WRITE_REFUSED, [(ALONE, u64::from(refused))])?;
        out.gauge(&families::COMPLAINTS, [(ALONE, status.warnings.len() as u64)])?;
        out.gauge(&families::PROBLEMS, [(ALONE, status.problems.len() as u64)])?;
        out.gauge(&families::SCRAPE, [(ALONE, took.as_secs_f64())])?;
        out.counter(&families::HTTP_REJECTED, [(ALONE, self.rejected.load(Ordering::Relaxed))])?;
        let published = agent.map(|agent| agent.published).unwrap_or_default();
        let longer = published.count - published.steps.iter().sum::<u64>();
        let steps = BUCKETS.into_iter().zip(published.steps).chain([(f64::INFINITY, longer)]);
        let mut histogram = out.begin(&families::PUBLISH)?;
        histogram.encode_histogram::<NoLabelSet>(published.sum, published.count, &steps.collect::<Vec<_>>(), None)
    }

    fn sources(&self, out: &mut Out<'_>) -> fmt::Result {
        let sources = || self.seen.status.agent.iter().flat_map(|agent| &agent.sources);
        let of = |source: &str| [("source", source.to_owned())];
        let ages = sources().filter_map(|it| Some((of(&it.source), it.answered_s?)));
        out.gauge(&families::SOURCE_AGE, ages)?;
        out.gauge(&families::SOURCE_TROUBLE, sources().map(|it| (of(&it.source), u64::from(it.trouble.is_some()))))?;
        out.counter(&families::SOURCE_FAILURES, sources().map(|it| (of(&it.source), it.failures)))
    }

    fn maps_and_hooks(&self, out: &mut Out<'_>) -> fmt::Result {
        let Overview { status, hooks, .. } = &*self.seen;
        out.gauge(&families::MAP_ENTRIES, status.maps.iter().map(|it| ([("map", it.map)], it.used as u64)))?;
        out.gauge(&families::MAP_MAX, status.maps.iter().map(|it| ([("map", it.map)], u64::from(it.entries))))?;
        let there = |hook: &str| hooks.iter().any(|row| row.hook == hook);
        let on_cgroup = HOOKS.iter().map(|hook| (vec![("hook", *hook)], u64::from(there(hook))));
        let on_interfaces = hooks.iter().filter_map(|row| {
            let interface = row.interface.as_deref()?;
            Some((vec![("hook", row.hook), ("interface", interface)], u64::from(row.effective == Some(true))))
        });
        out.gauge(&families::HOOK_ATTACHED, on_cgroup.chain(on_interfaces))?;
        // On all interfaces runs the same program, whose runs are those on all of them.
        let programs: BTreeMap<_, _> = hooks.iter().map(|row| (row.hook, row)).collect();
        out.counter(&families::HOOK_RUNS, programs.values().map(|row| ([("hook", row.hook)], row.runs)))?;
        let time = |mean: Option<f64>, runs: u64| mean.unwrap_or(0.0) * runs as f64 / 1e9;
        let times = programs.values().map(|row| ([("hook", row.hook)], time(row.mean_ns, row.runs)));
        out.counter(&families::HOOK_TIME, times)?;
        let verdicts = status.verdicts.iter().map(|(reason, count)| ([("reason", *reason)], *count));
        out.counter(&families::VERDICTS, verdicts)?;
        let remote = status.agent.as_ref().and_then(|agent| agent.remote_connections);
        out.gauge(&families::REMOTE_CONNECTIONS, remote.map(|remote| (ALONE, remote)))
    }
}

fn services(out: &mut Out<'_>, rows: &[ServiceRow]) -> fmt::Result {
    out.gauge(&families::SERVICES, [(ALONE, rows.len() as u64)])?;
    let of = |row| Labels { service: row, more: [] };
    let states = rows.iter().flat_map(|row| {
        let count = |state: &str| row.backends.iter().filter(|backend| backend.state == state).count() as u64;
        ["active", "warming", "draining", "ejected", "full"].into_iter().filter_map(move |state| {
            // Active ones are always told of, so that none is a zero.
            let told = count(state) > 0 || state == "active";
            told.then(|| (Labels { service: row, more: [("state", state)] }, count(state)))
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

/// What names a service, and what follows that.
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

/// Writes families, each in one go.
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
