//! Encodes the settings of a service for the map.

use std::time::Duration;

use proxymatic_common::{Features, Service, SourceCode};

use super::Desired;
use crate::model::{self, ServiceKey};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Returns the settings of a service as the map holds them.
pub(super) fn settings(desired: &Desired, key: ServiceKey, source: SourceCode, service: &model::Service) -> Service {
    let model::Settings { policy, maxconn, connect, client, server, affinity, allow, reset, expose } =
        &service.settings;
    // Whether a replica on this host listens on the service port itself.
    let own = service.backends.iter().any(|it| it.port == key.port && desired.is_local(it.address));
    let features = [
        (allow.is_some(), Features::ALLOW),
        (own, Features::OWN_LISTENER),
        (*reset, Features::RESET),
        (desired.exposed.has(*expose) && source != SourceCode::SELF, Features::EXPOSE),
    ];
    let features = features.into_iter().filter(|(is_set, _)| *is_set);
    Service {
        features: features.fold(Features::default(), |all, (_, one)| all.with(one)),
        maxconn: maxconn.unwrap_or(desired.max_connections),
        affinity: in_units(*affinity, SECOND),
        syn_retries: syn_retries(*connect),
        connect_ms: in_units(*connect, MS),
        idle_client_ms: in_units(client.unwrap_or_default(), MS),
        idle_server_ms: in_units(server.unwrap_or_default(), MS),
        ..Service::new(policy.code(), source)
    }
}

/// Converts a time, rounded up because 0 has a meaning of its own. The maximum is `u32::MAX`, which is 49 days in
/// milliseconds.
fn in_units(time: Duration, unit: Duration) -> u32 {
    u32::try_from(time.as_nanos().div_ceil(unit.as_nanos())).unwrap_or(u32::MAX)
}

/// Returns the smallest TCP_SYNCNT that does not give up before `connect`, within the kernel's limits; 0 for zero. The
/// kernel retransmits the SYN after 1, 2, 4, ... seconds, so n retries end after 2^(n + 1) - 1 seconds.
fn syn_retries(connect: Duration) -> u32 {
    if connect.is_zero() {
        return 0;
    }
    (1..6).find(|n| SECOND * ((2 << n) - 1) >= connect).unwrap_or(6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syn_retries_last_at_least_the_connect_timeout() {
        for (ms, retries) in [
            (0, 0),
            (1, 1),
            (1000, 1),
            (3000, 1),
            (3001, 2),
            (7000, 2),
            (15_000, 3),
            (31_000, 4),
            (63_000, 5),
            (63_001, 6),
        ] {
            assert_eq!(syn_retries(Duration::from_millis(ms)), retries, "{ms} ms");
        }
        assert_eq!(syn_retries(Duration::from_secs(86_400)), 6);
    }

    #[test]
    fn time_is_rounded_up_and_saturates() {
        assert_eq!(in_units(Duration::from_micros(1), MS), 1);
        assert_eq!(in_units(Duration::from_millis(1001), SECOND), 2);
        assert_eq!(in_units(Duration::from_secs(100 * 86_400), MS), u32::MAX);
        assert_eq!(in_units(Duration::ZERO, MS), 0);
    }
}
