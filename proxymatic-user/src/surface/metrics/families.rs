//! The declarations of all metrics. A test compares them with the list in docs/operating.md.

use prometheus_client::metrics::MetricType;

/// One metric.
pub(super) struct Family {
    /// The name, for a counter without the suffix `_total`.
    pub(super) name: &'static str,
    pub(super) kind: MetricType,
    /// One sentence: the meaning, and when the metric is absent.
    pub(super) help: &'static str,
}

macro_rules! families {
    ($($id:ident = $kind:ident $name:literal, $help:literal;)+) => {
        $(pub(super) const $id: Family = Family { name: concat!("proxymatic_", $name), kind: MetricType::$kind, help: $help };)+

        /// All metrics.
        #[cfg(test)]
        pub(super) const ALL: &[Family] = &[$($id),+];
    };
}

families! {
    BUILD_INFO = Gauge "build_info", "Version of the agent and of its map ABI; always 1.";
    AGENT_STATE = Gauge "agent_state", "1 for the current state of the agent, 0 for the others.";
    HEARTBEAT = Gauge "agent_heartbeat_age_seconds", "Time since the agent's last loop iteration; there is one each second.";
    SYNCED = Gauge "agent_synced_age_seconds", "Time since a complete answer of the sources was last applied; absent before the first.";
    WRITE_REFUSED = Gauge "agent_write_refused", "1 while the kernel refuses a map write.";
    WARNINGS = Gauge "warnings", "Number of warnings: what was asked for but not done; `proxymatic status` lists them.";
    PROBLEMS = Gauge "problems", "Number of problems; `proxymatic status` lists them with their remedies.";
    SCRAPE = Gauge "scrape_seconds", "Time that reading the maps for this answer took; the answer is up to a second old.";
    HTTP_REJECTED = Counter "http_rejected_connections", "Connections to this endpoint closed at once because too many were open.";
    PUBLISH = Histogram "publish_seconds", "Time from the arrival of a source's report to its last map write; reports without a write do not count.";
    SOURCE_AGE = Gauge "source_answer_age_seconds", "Time since the request whose answer is in use; absent before the first answer.";
    SOURCE_TROUBLE = Gauge "source_trouble", "1 while the source has a problem.";
    SOURCE_FAILURES = Counter "source_failures", "Requests to the source that failed since the agent started.";
    FIRST_PROBES = Counter "first_probes", "Probes of new backends before their first use since the agent started, by result: answered, refused, unanswered, failed.";
    AWAITED = Gauge "awaited_backends", "New backends without a check that have not answered a first probe.";
    MAP_ENTRIES = Gauge "map_entries", "Entries in use in the map.";
    MAP_MAX = Gauge "map_max_entries", "Entries that the map has.";
    HOOK_ATTACHED = Gauge "hook_attached", "1 if the hook is attached; hooks on interfaces also have the label interface.";
    HOOK_RUNS = Counter "hook_runs", "Runs of the hook while the kernel measured (sysctl kernel.bpf_stats_enabled).";
    HOOK_TIME = Counter "hook_run_seconds", "Time in the hook while the kernel measured (sysctl kernel.bpf_stats_enabled).";
    VERDICTS = Counter "verdicts", "Verdicts of the hooks by reason, over all services.";
    REMOTE_CONNECTIONS = Gauge "remote_connections", "Connections of remote clients in conntrack, including recently closed ones; absent if no interface is served.";
    SERVICES = Gauge "services", "Number of published services.";
    SERVICE_BACKENDS = Gauge "service_backends", "Backends of the service by state; a state other than active is absent if it has none.";
    SERVICE_CONNECTIONS = Counter "service_connections", "Connections opened from this host to the service.";
    SERVICE_OPEN = Gauge "service_open_connections", "Open connections from this host to the service.";
    SERVICE_REFUSED = Counter "service_refused", "Refused connections from this host to the service, by reason; absent if there were none.";
    BACKEND_CONNECTIONS = Counter "backend_connections", "Connections opened from this host to the backend.";
    BACKEND_OPEN = Gauge "backend_open_connections", "Open connections from this host to the backend.";
    BACKEND_ESTABLISHED = Counter "backend_established", "TCP connections from this host that the backend answered.";
    BACKEND_FAILURES = Counter "backend_failures", "TCP connections from this host that the backend refused or did not answer.";
    BACKEND_ELIGIBLE = Gauge "backend_eligible", "1 if the backend takes new connections, 0 if it is warming, draining, ejected or full.";
    BACKEND_RTT = Gauge "backend_rtt_seconds", "Round trip time of the handshake as the policy latency measures it: a peak-sensitive moving average, not a distribution; absent before the first.";
    BACKEND_HANDSHAKE = Histogram "backend_handshake_seconds", "Round trip times of the handshakes with the backend; absent before the first.";
    BACKENDS_FOLDED = Gauge "folded_backends", "Backends beyond the first 10000, without series of their own: each service has one series backend=\"other\" for them.";
}
