//! The settings of a service: everything except its port and its backends.

use std::{collections::BTreeSet, fmt, str::FromStr, time::Duration};

use super::AllowRule;

/// The default timeout for an unanswered connect.
pub const CONNECT: Duration = Duration::from_secs(3);

/// The policy: how a backend is picked for a new connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// Draws two backends by weight and picks the less loaded one.
    #[default]
    Leastconn,
    /// Draws one backend by weight.
    Random,
    /// Picks the next backend in turn, by weight.
    Roundrobin,
    /// Picks by the client's address or cgroup.
    Source,
    /// Draws two backends by weight and picks the one with the lower latency.
    Latency,
    /// Picks by client and source port; few clients move if backends come or go.
    Maglev,
}

impl Policy {
    /// All policies, in the order of the documents.
    pub const ALL: [Self; 6] =
        [Self::Leastconn, Self::Random, Self::Roundrobin, Self::Source, Self::Latency, Self::Maglev];
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leastconn => "leastconn",
            Self::Random => "random",
            Self::Roundrobin => "roundrobin",
            Self::Source => "source",
            Self::Latency => "latency",
            Self::Maglev => "maglev",
        })
    }
}

impl FromStr for Policy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|policy| policy.to_string() == text);
        known.ok_or("must be one of leastconn, random, roundrobin, source, latency and maglev")
    }
}

/// The settings of a service. The default holds for a service without labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The rule that picks a backend.
    pub policy: Policy,
    /// The limit of open connections from this host to all backends together; 0 for none, `None` for the agent's
    /// setting for all services.
    pub maxconn: Option<u32>,
    /// The timeout for an unanswered connect; zero leaves it to the system.
    pub connect: Duration,
    /// The idle timeout of the client's side; `None` for none.
    pub client: Option<Duration>,
    /// The idle timeout of the backend's side; `None` for none.
    pub server: Option<Duration>,
    /// How long a client stays with its backend after its last connection; zero for no affinity.
    pub affinity: Duration,
    /// The clients that may connect; `None` for all. With an empty list no client may connect.
    pub allow: Option<BTreeSet<AllowRule>>,
    /// Whether the agent resets TCP connections to a backend that is gone.
    pub reset: bool,
    /// Whether remote clients may use the service.
    pub expose: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            maxconn: None,
            connect: CONNECT,
            client: None,
            server: None,
            affinity: Duration::ZERO,
            allow: None,
            reset: false,
            expose: false,
        }
    }
}

impl Settings {
    /// Returns the paths of the cgroups in the allow list.
    pub fn cgroups(&self) -> impl Iterator<Item = &str> {
        self.allow.iter().flatten().filter_map(|allowed| match allowed {
            AllowRule::Cgroup(path) => Some(path.as_str()),
            AllowRule::Network(..) => None,
        })
    }
}
