//! The metrics there are. docs/operating.md has the same list, which a test compares.

use prometheus_client::metrics::MetricType;

/// One metric.
pub(super) struct Family {
    /// Its name; of a counter without the `_total` that is added to it.
    pub(super) name: &'static str,
    pub(super) kind: MetricType,
    /// One sentence: what it is, where it is absent.
    pub(super) help: &'static str,
}

macro_rules! families {
    ($($id:ident = $kind:ident $name:literal, $help:literal;)+) => {
        $(pub(super) const $id: Family = Family { name: concat!("proxymatic_", $name), kind: MetricType::$kind, help: $help };)+

        /// All of them.
        #[cfg(test)]
        pub(super) const ALL: &[Family] = &[$($id),+];
    };
}

families! {
    BUILD_INFO = Gauge "build_info", "Version of the agent and of the layout of its maps; always 1.";
    AGENT_STATE = Gauge "agent_state", "1 for the state that the agent is in, 0 for the others.";
    HEARTBEAT = Gauge "agent_heartbeat_age_seconds", "Time since the agent last went round its loop, which it does each second.";
    SYNCED = Gauge "agent_synced_age_seconds", "Time since a complete answer of the sources was last applied; absent before the first ever.";
    WRITE_REFUSED = Gauge "agent_write_refused", "1 while the kernel refuses a map write.";
    COMPLAINTS = Gauge "warnings", "What was asked for and is not done; `proxymatic status` says why.";
    PROBLEMS = Gauge "problems", "Number of problems; `proxymatic status` lists them with their remedies.";
    SCRAPE = Gauge "scrape_seconds", "How long it took to read the maps for this answer, which is up to a second old.";
    HTTP_REJECTED = Counter "http_rejected_connections", "Connections to this endpoint that were closed at once because too many were open.";
    PUBLISH = Histogram "publish_seconds", "Time from a report of a source that reached the agent to the last map write of it, where it came to any.";
    SOURCE_AGE = Gauge "source_answer_age_seconds", "Time since the request whose answer is in use; absent before the first answer.";
    SOURCE_TROUBLE = Gauge "source_trouble", "1 while something is wrong with the source.";
    SOURCE_FAILURES = Counter "source_failures", "Attempts to ask the source that have failed since the agent started.";
    MAP_ENTRIES = Gauge "map_entries", "Entries of the map that are in use.";
    MAP_MAX = Gauge "map_max_entries", "Entries that the map has.";
    HOOK_ATTACHED = Gauge "hook_attached", "1 where the hook is in place; those of interfaces have the label interface too.";
    HOOK_RUNS = Counter "hook_runs", "Runs of the hook while the kernel measured (sysctl kernel.bpf_stats_enabled).";
    HOOK_TIME = Counter "hook_run_seconds", "Time in the hook while the kernel measured (sysctl kernel.bpf_stats_enabled).";
    VERDICTS = Counter "verdicts", "Verdicts of the hooks by reason, over all services.";
    REMOTE_CONNECTIONS = Gauge "remote_connections", "Connections of clients on other machines that are kept, those that have just ended included; absent where no interface is served.";
    SERVICES = Gauge "services", "Services that can be found.";
    SERVICE_BACKENDS = Gauge "service_backends", "Backends of the service by state; a state other than active is absent where there are none.";
    SERVICE_CONNECTIONS = Counter "service_connections", "Connections opened from this host to the service.";
    SERVICE_OPEN = Gauge "service_open_connections", "Connections from this host to the service that are open now.";
    SERVICE_REFUSED = Counter "service_refused", "Connections from this host to the service that were refused, by reason; absent where there were none.";
    BACKEND_CONNECTIONS = Counter "backend_connections", "Connections opened from this host to the backend.";
    BACKEND_OPEN = Gauge "backend_open_connections", "Connections from this host to the backend that are open now.";
    BACKEND_ESTABLISHED = Counter "backend_established", "TCP connections from this host that the backend answered.";
    BACKEND_FAILURES = Counter "backend_failures", "TCP connections from this host that the backend refused or did not answer.";
    BACKEND_ELIGIBLE = Gauge "backend_eligible", "1 where the backend takes new connections, 0 where it is warming, draining, ejected or full.";
    BACKEND_RTT = Gauge "backend_rtt_seconds", "Round trip time of the handshake as the policy latency sees it: a peak-sensitive moving average, no distribution; absent before the first.";
    BACKEND_HANDSHAKE = Histogram "backend_handshake_seconds", "Round trip times of the handshakes with the backend; absent before the first.";
    BACKENDS_FOLDED = Gauge "folded_backends", "Backends beyond the first 10000, which have no series of their own: each service has one of backend=\"other\" for them.";
}
