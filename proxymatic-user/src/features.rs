//! What this kernel has of what proxymatic uses, and what is done without: found by trying, never by version.

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
    /// What it is for, and its name.
    pub feature: &'static str,
    /// Whether the kernel has it; absent where that could not be told.
    pub has: Option<bool>,
    /// Whether nothing can be attached without it.
    pub needed: bool,
    /// What was found, where that says more than that it is there.
    pub found: Option<String>,
    /// What is used instead; absent where it is there, or where there is nothing instead.
    pub instead: Option<&'static str>,
    /// What the kernel said; absent where it has it.
    pub reason: Option<String>,
}

/// How a feature is asked for, and what is done without it.
struct Question {
    feature: &'static str,
    without: Fallback,
    ask: fn(&mut Probes) -> Found,
}

enum Fallback {
    /// Nothing can be attached.
    Nothing,
    /// This is done instead.
    Instead(&'static str),
}

enum Found {
    /// The kernel was asked.
    Answer(Answer),
    /// It is there, and this is it.
    There(String),
    /// It could not be.
    Unknown(String),
}

use Fallback::{Instead, Nothing};

macro_rules! load {
    ($($name:literal),+) => {
        |probes| Found::Answer([$($name),+].into_iter().try_for_each(|name| probes.loads(name)))
    };
}

/// All questions, what is needed first.
const QUESTIONS: [Question; 27] = [
    Question { feature: "hooks of connect", without: Nothing, ask: load!("connects") },
    Question { feature: "hooks of getpeername", without: Nothing, ask: load!("peer_names") },
    Question { feature: "hooks of sendmsg", without: Nothing, ask: load!("datagrams") },
    Question { feature: "hooks of recvmsg", without: Nothing, ask: load!("senders") },
    Question { feature: "hook of close (sock_release)", without: Nothing, ask: load!("closes") },
    Question { feature: "hooks of bind (post_bind)", without: Nothing, ask: load!("binds") },
    Question { feature: "hook of TCP states (sock_ops)", without: Nothing, ask: load!("tcp_events") },
    Question { feature: "state of sockets (sk_storage) in connect", without: Nothing, ask: load!("keeps") },
    Question { feature: "state of sockets (sk_storage) in close", without: Nothing, ask: load!("finds") },
    Question { feature: "state of sockets (sk_storage) in TCP states", without: Nothing, ask: load!("finds_tcp") },
    Question { feature: "events (ring buffer)", without: Nothing, ask: load!("tells") },
    Question { feature: "namespaces told apart (netns cookie) by hooks", without: Nothing, ask: load!("netns") },
    Question { feature: "listeners (sk_lookup)", without: Nothing, ask: load!("listener") },
    Question { feature: "cgroups of programs (cgroup id)", without: Nothing, ask: load!("cgroups") },
    Question { feature: "timeout.connect (setsockopt TCP_SYNCNT)", without: Nothing, ask: load!("syn_retries") },
    Question { feature: "links to cgroups", without: Nothing, ask: |probes| link(probes, |(made, _)| made) },
    Question {
        feature: "programs replaced behind links",
        without: Nothing,
        ask: |probes| link(probes, |(_, put)| put),
    },
    Question {
        feature: "the host's root of cgroups",
        without: Instead("--cgroup has to name a folder"),
        ask: |_| match cgroup_root() {
            // One that it has mounted itself has no name.
            Ok(path) if path.starts_with("/proc/self") => Found::There("mounted by this process for itself".into()),
            Ok(path) => Found::There(path.display().to_string()),
            Err(error) => Found::Answer(Err(error.to_string())),
        },
    },
    Question {
        feature: "the host's namespace (SO_NETNS_COOKIE)",
        without: Instead("--loopback all or none has to be said"),
        ask: |_| Found::Answer(netns_cookie().map(drop).map_err(|error| error.to_string())),
    },
    Question {
        feature: "errors of refusals (set_retval)",
        without: Instead("a refused socket is sent to a closed port"),
        ask: load!("set_retval"),
    },
    Question {
        feature: "MPTCP",
        without: Instead("connections by MPTCP are not counted when they end"),
        ask: load!("mptcp"),
    },
    Question {
        feature: "UDP sockets ended (SOCK_DESTROY)",
        without: Instead("connected UDP sockets stay with a task that is gone"),
        ask: |_| ends(PROTOCOL_UDP),
    },
    Question {
        feature: "TCP connections ended (SOCK_DESTROY)",
        without: Instead("on-backend-removed=reset and idle timeouts do nothing"),
        ask: |_| ends(PROTOCOL_TCP),
    },
    Question {
        feature: "copies of sockets (pidfd_getfd)",
        without: Instead("connected UDP sockets stay with a task that is gone"),
        ask: |_| Found::Answer(sockets::supports_pidfd_getfd().map_err(|error| error.to_string())),
    },
    Question {
        feature: "memory of maps by cgroup",
        without: Instead("maps have to fit into RLIMIT_MEMLOCK"),
        ask: |probes| Found::Answer(probes.memory_is_charged_to_cgroup()),
    },
    Question {
        feature: "run times (bpf_stats)",
        without: Instead("hook show has none"),
        ask: |probes| Found::Answer(probes.run_statistics()),
    },
    Question {
        feature: "links to interfaces (tcx)",
        without: Instead("hooks of interfaces are filters of clsact"),
        ask: |probes| Found::Answer(probes.tcx()),
    },
];

fn link(probes: &mut Probes, which: fn((Answer, Answer)) -> Answer) -> Found {
    match probes.links() {
        Ok(both) => Found::Answer(which(both)),
        Err(error) => Found::Unknown(format!("a cgroup to try it on cannot be made: {error}")),
    }
}

fn ends(protocol: u8) -> Found {
    match sockets::supports_destroy(protocol) {
        Ok(true) => Found::Answer(Ok(())),
        Ok(false) => Found::Answer(Err("the socket did not end".into())),
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => Found::Answer(Err(error.to_string())),
        Err(error) => Found::Unknown(error.to_string()),
    }
}

/// Asks for all. Nothing stays loaded or attached.
///
/// # Errors
/// This process may not load programs, or has none.
pub fn features() -> Result<Vec<FeatureRow>, Error> {
    let mut probes = Probes::open()?;
    Ok(QUESTIONS.iter().map(|question| row(question, (question.ask)(&mut probes))).collect())
}

fn row(question: &Question, found: Found) -> FeatureRow {
    let (has, found, reason) = match found {
        Found::Answer(Ok(())) => (Some(true), None, None),
        Found::There(what) => (Some(true), Some(what), None),
        Found::Answer(Err(reason)) => (Some(false), None, Some(reason)),
        Found::Unknown(reason) => (None, None, Some(reason)),
    };
    let (needed, instead) = match question.without {
        Nothing => (true, None),
        Instead(what) => (false, (has == Some(false)).then_some(what)),
    };
    FeatureRow { feature: question.feature, has, needed, found, instead, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(without: Fallback) -> Question {
        Question { feature: "x", without, ask: |_| Found::Answer(Ok(())) }
    }

    #[test]
    fn what_is_used_instead_is_said_only_where_it_is_used() {
        let optional = question(Instead("y"));
        let there = row(&optional, Found::Answer(Ok(())));
        assert_eq!((there.has, there.instead, there.needed), (Some(true), None, false));
        let missing = row(&optional, Found::Answer(Err("EINVAL".into())));
        assert_eq!((missing.has, missing.instead, missing.reason.as_deref()), (Some(false), Some("y"), Some("EINVAL")));
        let unknown = row(&question(Nothing), Found::Unknown("EROFS".into()));
        assert_eq!((unknown.has, unknown.instead, unknown.needed), (None, None, true));
    }
}
