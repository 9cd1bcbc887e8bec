//! How a service is served, beyond its port and its backends.

use std::{collections::BTreeSet, fmt, str::FromStr, time::Duration};

use super::AllowRule;

/// How long an unanswered connect may take where nothing else is said.
pub const CONNECT: Duration = Duration::from_secs(3);

/// How a backend is chosen for a new connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// The less loaded of two drawn by weight.
    #[default]
    Leastconn,
    /// One drawn by weight.
    Random,
    /// The next in turn, by weight.
    Roundrobin,
    /// By who dials.
    Source,
    /// The one that answers sooner, of two drawn by weight.
    Latency,
    /// By who dials and from which port; few clients move when backends come and go.
    Maglev,
}

impl Policy {
    /// All of them, in the order of the documents.
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

/// How a service is served. The default is what a service gets that asks for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How a backend is chosen.
    pub policy: Policy,
    /// The most connections open from this host at once, to all backends together; 0 for no bound, `None` for what the
    /// agent was told for all services.
    pub maxconn: Option<u32>,
    /// How long an unanswered connect may take; zero leaves it to the system.
    pub connect: Duration,
    /// How long the client's side of a connection may be idle; `None` for ever.
    pub client: Option<Duration>,
    /// How long the backend's side of a connection may be idle; `None` for ever.
    pub server: Option<Duration>,
    /// How long a client stays with its backend after its last connection; zero for not at all.
    pub affinity: Duration,
    /// Who may connect; `None` for everybody. An empty list is nobody.
    pub allow: Option<BTreeSet<AllowRule>>,
    /// Whether TCP connections to a backend that is gone are reset.
    pub reset: bool,
    /// Whether clients on other machines are served.
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
    /// The paths of the cgroups that the allow list names.
    pub fn cgroups(&self) -> impl Iterator<Item = &str> {
        self.allow.iter().flatten().filter_map(|allowed| match allowed {
            AllowRule::Cgroup(path) => Some(path.as_str()),
            AllowRule::Network(..) => None,
        })
    }
}
