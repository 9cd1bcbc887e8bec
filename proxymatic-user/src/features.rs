//! The features of this kernel that proxymatic uses, and the fallback for each. Found by trying, never by version.

use proxymatic_common::{PROTOCOL_TCP, PROTOCOL_UDP};

use crate::{
    dataplane::{
        Error,
        kernel::{Answer, Probes, cgroup_root, netns_cookie},
    },
    sockets,
};

/// One feature, as `feature probe` prints it. The JSON is a contract: see docs/cli.md.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FeatureRow {
    /// The feature.
    pub feature: &'static str,
    /// Whether the kernel has the feature; absent if that is unknown.
    pub has: Option<bool>,
    /// Whether nothing can be attached without the feature.
    pub needed: bool,
    /// What was found, if that is more than the feature itself.
    pub found: Option<String>,
    /// The fallback in use; absent if the kernel has the feature, or if there is no fallback.
    pub instead: Option<&'static str>,
    /// The kernel's reason; absent if it has the feature.
    pub reason: Option<String>,
}

/// How to probe for a feature, and the fallback without it.
struct Feature {
    name: &'static str,
    fallback: Fallback,
    probe: fn(&mut Probes) -> Found,
}

enum Fallback {
    /// Without the feature nothing can be attached.
    Nothing,
    /// Without the feature this is used.
    Instead(&'static str),
}

enum Found {
    /// The probe's answer.
    Answer(Answer),
    /// The kernel has the feature, with these details.
    Details(String),
    /// The probe failed for another reason.
    Unknown(String),
}

use Fallback::{Instead, Nothing};

macro_rules! load {
    ($($name:literal),+) => {
        |probes| Found::Answer([$($name),+].into_iter().try_for_each(|name| probes.loads(name)))
    };
}

/// All features, needed ones first.
const FEATURES: [Feature; 27] = [
    Feature { name: "hooks of connect", fallback: Nothing, probe: load!("connect6") },
    Feature { name: "hooks of getpeername", fallback: Nothing, probe: load!("peer_names") },
    Feature { name: "hooks of sendmsg", fallback: Nothing, probe: load!("datagrams") },
    Feature { name: "hooks of recvmsg", fallback: Nothing, probe: load!("recvmsg6") },
    Feature { name: "hook of close (sock_release)", fallback: Nothing, probe: load!("sock_release") },
    Feature { name: "hooks of bind (post_bind)", fallback: Nothing, probe: load!("post_bind") },
    Feature { name: "hook of TCP states (sock_ops)", fallback: Nothing, probe: load!("tcp_events") },
    Feature { name: "state of sockets (sk_storage) in connect", fallback: Nothing, probe: load!("sk_storage_connect") },
    Feature { name: "state of sockets (sk_storage) in close", fallback: Nothing, probe: load!("sk_storage_release") },
    Feature {
        name: "state of sockets (sk_storage) in TCP states",
        fallback: Nothing,
        probe: load!("sk_storage_sockops"),
    },
    Feature { name: "events (ring buffer)", fallback: Nothing, probe: load!("ringbuf") },
    Feature { name: "namespaces told apart (netns cookie) by hooks", fallback: Nothing, probe: load!("netns") },
    Feature { name: "listeners (sk_lookup)", fallback: Nothing, probe: load!("listener") },
    Feature { name: "cgroups of programs (cgroup id)", fallback: Nothing, probe: load!("cgroups") },
    Feature { name: "timeout.connect (setsockopt TCP_SYNCNT)", fallback: Nothing, probe: load!("syn_retries") },
    Feature { name: "links to cgroups", fallback: Nothing, probe: |probes| link(probes, |(made, _)| made) },
    Feature { name: "programs replaced behind links", fallback: Nothing, probe: |probes| link(probes, |(_, put)| put) },
    Feature {
        name: "the host's root of cgroups",
        fallback: Instead("--cgroup is needed"),
        probe: |_| match cgroup_root() {
            // A mount of this process alone has no path.
            Ok(path) if path.starts_with("/proc/self") => Found::Details("mounted by this process for itself".into()),
            Ok(path) => Found::Details(path.display().to_string()),
            Err(error) => Found::Answer(Err(error.to_string())),
        },
    },
    Feature {
        name: "the host's namespace (SO_NETNS_COOKIE)",
        fallback: Instead("--loopback all or --loopback none is needed, and allow lists admit by cgroup only"),
        probe: |_| Found::Answer(netns_cookie().map(drop).map_err(|error| error.to_string())),
    },
    Feature {
        name: "errors of refusals (set_retval)",
        fallback: Instead("a refused socket is sent to a closed port"),
        probe: load!("set_retval"),
    },
    Feature {
        name: "MPTCP",
        fallback: Instead("the end of an MPTCP connection is not counted"),
        probe: load!("mptcp"),
    },
    Feature {
        name: "UDP sockets ended (SOCK_DESTROY)",
        fallback: Instead("connected UDP sockets keep a task that is gone"),
        probe: |_| supports_destroy(PROTOCOL_UDP),
    },
    Feature {
        name: "TCP connections ended (SOCK_DESTROY)",
        fallback: Instead("on-backend-removed=reset and idle timeouts do nothing"),
        probe: |_| supports_destroy(PROTOCOL_TCP),
    },
    Feature {
        name: "copies of sockets (pidfd_getfd)",
        fallback: Instead("connected UDP sockets keep a task that is gone"),
        probe: |_| Found::Answer(sockets::supports_pidfd_getfd().map_err(|error| error.to_string())),
    },
    Feature {
        name: "memory of maps by cgroup",
        fallback: Instead("maps have to fit into RLIMIT_MEMLOCK"),
        probe: |probes| Found::Answer(probes.memory_is_charged_to_cgroup()),
    },
    Feature {
        name: "run times (bpf_stats)",
        fallback: Instead("hook show prints no run times"),
        probe: |probes| Found::Answer(probes.run_statistics()),
    },
    Feature {
        name: "links to interfaces (tcx)",
        fallback: Instead("hooks of interfaces are clsact filters"),
        probe: |probes| Found::Answer(probes.tcx()),
    },
];

fn link(probes: &mut Probes, which: fn((Answer, Answer)) -> Answer) -> Found {
    match probes.links() {
        Ok(both) => Found::Answer(which(both)),
        Err(error) => Found::Unknown(format!("cannot create a temporary cgroup: {error}")),
    }
}

fn supports_destroy(protocol: u8) -> Found {
    match sockets::supports_destroy(protocol) {
        Ok(true) => Found::Answer(Ok(())),
        Ok(false) => Found::Answer(Err("the socket was not destroyed".into())),
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => Found::Answer(Err(error.to_string())),
        Err(error) => Found::Unknown(error.to_string()),
    }
}

/// Probes for all features. Leaves nothing loaded or attached.
///
/// # Errors
/// Fails if this build has no feature probes, or if this process may not load programs.
pub fn features() -> Result<Vec<FeatureRow>, Error> {
    let mut probes = Probes::open()?;
    Ok(FEATURES.iter().map(|feature| row(feature, (feature.probe)(&mut probes))).collect())
}

fn row(feature: &Feature, found: Found) -> FeatureRow {
    let (has, found, reason) = match found {
        Found::Answer(Ok(())) => (Some(true), None, None),
        Found::Details(what) => (Some(true), Some(what), None),
        Found::Answer(Err(reason)) => (Some(false), None, Some(reason)),
        Found::Unknown(reason) => (None, None, Some(reason)),
    };
    let (needed, instead) = match feature.fallback {
        Nothing => (true, None),
        Instead(what) => (false, (has == Some(false)).then_some(what)),
    };
    FeatureRow { feature: feature.name, has, needed, found, instead, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feature(fallback: Fallback) -> Feature {
        Feature { name: "x", fallback, probe: |_| Found::Answer(Ok(())) }
    }

    #[test]
    fn fallback_is_shown_only_if_it_is_in_use() {
        let optional = feature(Instead("y"));
        let there = row(&optional, Found::Answer(Ok(())));
        assert_eq!((there.has, there.instead, there.needed), (Some(true), None, false));
        let missing = row(&optional, Found::Answer(Err("EINVAL".into())));
        assert_eq!((missing.has, missing.instead, missing.reason.as_deref()), (Some(false), Some("y"), Some("EINVAL")));
        let unknown = row(&feature(Nothing), Found::Unknown("EROFS".into()));
        assert_eq!((unknown.has, unknown.instead, unknown.needed), (None, None, true));
    }
}
