//! The capabilities of each kind of thread after the start. docs/operating.md repeats the table.

mod seccomp;

pub use seccomp::install;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

/// A kind of thread of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    /// The event loop: sources, plans, maps.
    Loop,
    /// Reads the file of services, and large answers of sources.
    Readers,
    /// Sweeps the sockets of all network namespaces.
    Sockets,
    /// Keeps the hooks of interfaces attached.
    Interfaces,
    /// Checks the host for problems.
    Host,
    /// Writes the state file, which belongs to root as its folder does.
    State,
    /// Serves the status endpoint.
    Status,
    /// Reads the maps for the status endpoint.
    Look,
}

impl Thread {
    /// All kinds of threads.
    pub const ALL: [Self; 8] =
        [Self::Loop, Self::Readers, Self::Sockets, Self::Interfaces, Self::Host, Self::State, Self::Status, Self::Look];

    /// The name of a thread of this kind (`/proc/<pid>/task/<tid>/comm`).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loop => "proxymatic",
            Self::Readers => "readers",
            Self::Sockets => "sockets",
            Self::Interfaces => "interfaces",
            Self::Host => "host",
            Self::State => "state",
            Self::Status => "status",
            Self::Look => "status-look",
        }
    }
}

/// The enabled features that need capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EnabledFeatures {
    /// `--bypass-mark` is set.
    pub bypass_mark: bool,
    /// `--file` is set.
    pub file: bool,
    /// `--interface` is set.
    pub interfaces: bool,
    /// Another map ABI version is pinned, which the agent replaces, or whose pins it removes.
    pub other_version: bool,
}

/// A capability of a kind of thread.
#[derive(Clone, Copy, Debug)]
pub struct Capability {
    /// The kind of thread.
    pub thread: Thread,
    /// The number of the capability in linux/capability.h.
    pub number: u32,
    /// The name of the capability in linux/capability.h.
    pub name: &'static str,
    /// What the thread does with it.
    pub why: &'static str,
    needed: fn(&EnabledFeatures) -> bool,
}

const fn capability(thread: Thread, (number, name): (u32, &'static str), why: &'static str) -> Capability {
    Capability { thread, number, name, why, needed: |_| true }
}

const DAC_READ_SEARCH: (u32, &str) = (2, "CAP_DAC_READ_SEARCH");
const NET_ADMIN: (u32, &str) = (12, "CAP_NET_ADMIN");
const SYS_PTRACE: (u32, &str) = (19, "CAP_SYS_PTRACE");
const SYS_ADMIN: (u32, &str) = (21, "CAP_SYS_ADMIN");
const BPF: (u32, &str) = (39, "CAP_BPF");

/// All capabilities that remain, by kind of thread.
pub const CAPABILITIES: [Capability; 18] = [
    capability(Thread::Loop, BPF, "writes maps"),
    Capability {
        needed: |uses| uses.bypass_mark,
        ..capability(Thread::Loop, NET_ADMIN, "sets --bypass-mark on its probes")
    },
    Capability {
        needed: |uses| uses.other_version,
        ..capability(Thread::Loop, NET_ADMIN, "takes hooks over from another map ABI version")
    },
    Capability {
        needed: |uses| uses.other_version,
        ..capability(Thread::Loop, SYS_ADMIN, "removes the pins of that version")
    },
    Capability { needed: |uses| uses.file, ..capability(Thread::Loop, DAC_READ_SEARCH, "passes it on to the readers") },
    Capability {
        needed: |uses| uses.file,
        ..capability(Thread::Readers, DAC_READ_SEARCH, "reads the file of --file, whoever owns it")
    },
    capability(Thread::Sockets, BPF, "reads translations of sockets, and writes the addresses of namespaces"),
    capability(Thread::Sockets, NET_ADMIN, "destroys sockets, and reads translations through sock_diag"),
    capability(Thread::Sockets, SYS_ADMIN, "enters other network namespaces"),
    capability(Thread::Sockets, SYS_PTRACE, "finds the namespaces of programs, and duplicates their sockets"),
    capability(Thread::Sockets, DAC_READ_SEARCH, "finds which sockets the programs of other users have open"),
    Capability {
        needed: |uses| uses.interfaces,
        ..capability(Thread::Interfaces, BPF, "attaches hooks to new interfaces, and lists these in a map")
    },
    Capability {
        needed: |uses| uses.interfaces,
        ..capability(Thread::Interfaces, NET_ADMIN, "attaches hooks as clsact filters before Linux 6.6")
    },
    capability(Thread::Status, BPF, "passes it on to the thread that reads maps"),
    capability(Thread::Look, BPF, "reads maps"),
    capability(Thread::Host, BPF, "queries programs of others"),
    capability(Thread::Host, NET_ADMIN, "queries which programs of others are attached to the cgroup"),
    capability(Thread::Host, SYS_ADMIN, "queries their names"),
];

/// Returns the capabilities of a kind of thread with these features.
pub fn capabilities_of(thread: Thread, uses: EnabledFeatures) -> impl Iterator<Item = &'static Capability> {
    CAPABILITIES.iter().filter(move |capability| capability.thread == thread && (capability.needed)(&uses))
}

/// Drops what no thread needs from this process for good: capabilities, also those that a program run by it would
/// get.
///
/// Until it calls [`drop_to`], each thread keeps what all kinds of threads need together, and may listen on ports below
/// 1024. Call this before there are other threads. Capabilities that this process lacks are no error.
///
/// # Errors
/// Fails if the kernel refuses.
pub fn give_up(uses: EnabledFeatures) -> rustix::io::Result<()> {
    let all = Thread::ALL.into_iter().flat_map(|thread| capabilities_of(thread, uses));
    apply(set(all) | CapabilitySet::NET_BIND_SERVICE, true)
}

/// Drops all capabilities: for the self-test's helper, which only opens sockets.
///
/// # Errors
/// Fails if the kernel refuses.
pub fn give_up_all() -> rustix::io::Result<()> {
    apply(CapabilitySet::empty(), true)
}

/// Drops the capabilities that this kind of thread does not need, for the calling thread and those that it starts.
///
/// # Errors
/// Fails if the kernel refuses.
pub fn drop_to(thread: Thread, uses: EnabledFeatures) -> rustix::io::Result<()> {
    apply(set(capabilities_of(thread, uses)), false)
}

fn set(all: impl Iterator<Item = &'static Capability>) -> CapabilitySet {
    all.fold(CapabilitySet::empty(), |set, capability| set | CapabilitySet::from_bits_retain(1 << capability.number))
}

fn apply(wanted: CapabilitySet, bounding: bool) -> rustix::io::Result<()> {
    let has = capabilities(None)?.permitted;
    let left = remaining(has, wanted);
    if bounding {
        // Failures do not matter, for a number that the kernel does not know or a process that may not do this: a
        // capability that is not permitted cannot come back with no_new_privs.
        for number in (0..u64::BITS).filter(|number| left.bits() & 1 << number == 0) {
            let _ = remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number));
        }
        clear_ambient_capability_set()?;
        set_no_new_privs(true)?;
    }
    set_capabilities(None, CapabilitySets { effective: left, permitted: left, inheritable: CapabilitySet::empty() })
}

/// Returns what remains of `has`. `CAP_SYS_ADMIN` replaces a missing `CAP_BPF`, which old container runtimes do not
/// know.
fn remaining(has: CapabilitySet, wanted: CapabilitySet) -> CapabilitySet {
    let stands_in = wanted.contains(CapabilitySet::BPF) && !has.contains(CapabilitySet::BPF);
    has & if stands_in { wanted | CapabilitySet::SYS_ADMIN } else { wanted }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYTHING: EnabledFeatures =
        EnabledFeatures { bypass_mark: true, file: true, interfaces: true, other_version: true };

    #[test]
    fn disabled_feature_needs_no_capability() {
        let names = |thread, uses| capabilities_of(thread, uses).map(|capability| capability.name).collect::<Vec<_>>();
        assert_eq!(names(Thread::Loop, EnabledFeatures::default()), ["CAP_BPF"]);
        assert_eq!(names(Thread::Readers, EnabledFeatures::default()), Vec::<&str>::new());
        let without = EnabledFeatures { other_version: false, ..EVERYTHING };
        assert_eq!(names(Thread::Loop, without), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_DAC_READ_SEARCH"]);
        assert_eq!(names(Thread::Readers, EVERYTHING), ["CAP_DAC_READ_SEARCH"]);
    }

    #[test]
    fn numbers_and_names_are_those_of_the_kernel() {
        for capability in CAPABILITIES {
            let known = CapabilitySet::from_name(capability.name.trim_start_matches("CAP_")).unwrap();
            assert_eq!(known.bits(), 1 << capability.number, "{}", capability.name);
        }
    }

    #[test]
    fn loop_has_all_capabilities_of_the_threads_that_it_starts() {
        for uses in [EnabledFeatures::default(), EVERYTHING] {
            assert!(set(capabilities_of(Thread::Loop, uses)).contains(set(capabilities_of(Thread::Readers, uses))));
        }
    }

    #[test]
    fn sys_admin_remains_if_cap_bpf_is_missing() {
        let admin = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
        assert_eq!(remaining(admin, CapabilitySet::BPF), CapabilitySet::SYS_ADMIN);
        assert_eq!(remaining(admin | CapabilitySet::BPF, CapabilitySet::BPF), CapabilitySet::BPF);
        assert_eq!(remaining(CapabilitySet::NET_ADMIN, CapabilitySet::NET_ADMIN), CapabilitySet::NET_ADMIN);
    }

    #[test]
    fn operating_md_lists_the_same_capabilities() {
        let said = include_str!("../../../docs/operating.md");
        for capability in CAPABILITIES {
            let row = format!("| `{}` | `{}` | {} |", capability.thread.name(), capability.name, capability.why);
            assert!(said.contains(&row), "docs/operating.md lacks {row}");
        }
    }
}
