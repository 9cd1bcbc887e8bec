//! What each thread of the agent may still do once everything is attached. One table; docs/operating.md repeats it.

mod seccomp;

pub use seccomp::install;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

/// A kind of thread, by what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    /// The one loop: sources, plans, maps.
    Loop,
    /// Reads the file of services, and large answers.
    Readers,
    /// Goes through the sockets of all namespaces.
    Sockets,
    /// Keeps the hooks of interfaces in place.
    Interfaces,
    /// Looks for what on this host is in the way of services.
    Host,
    /// Writes the state file, which is root's in a folder of root's.
    State,
    /// Answers on the status endpoint.
    Status,
    /// Looks at the maps for it.
    Look,
}

impl Thread {
    /// All there are.
    pub const ALL: [Self; 8] =
        [Self::Loop, Self::Readers, Self::Sockets, Self::Interfaces, Self::Host, Self::State, Self::Status, Self::Look];

    /// What the kernel calls a thread of this kind (`/proc/<pid>/task/<tid>/comm`).
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

/// What is switched on, as far as a capability depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EnabledFeatures {
    /// There is a bypass mark.
    pub bypass_mark: bool,
    /// There is a file of services.
    pub file: bool,
    /// There are interfaces to be served.
    pub interfaces: bool,
    /// Another version of the data plane was found pinned: it is to be replaced, or what is left of it to be removed.
    pub other_version: bool,
}

/// One capability of one kind of thread.
#[derive(Clone, Copy, Debug)]
pub struct Capability {
    /// Who has it.
    pub thread: Thread,
    /// Its number in linux/capability.h.
    pub number: u32,
    /// Its name there.
    pub name: &'static str,
    /// What for.
    pub why: &'static str,
    needed: fn(&EnabledFeatures) -> bool,
}

const fn right(thread: Thread, (number, name): (u32, &'static str), why: &'static str) -> Capability {
    Capability { thread, number, name, why, needed: |_| true }
}

const DAC_READ_SEARCH: (u32, &str) = (2, "CAP_DAC_READ_SEARCH");
const NET_ADMIN: (u32, &str) = (12, "CAP_NET_ADMIN");
const SYS_PTRACE: (u32, &str) = (19, "CAP_SYS_PTRACE");
const SYS_ADMIN: (u32, &str) = (21, "CAP_SYS_ADMIN");
const BPF: (u32, &str) = (39, "CAP_BPF");

/// Everything that is left, by thread.
pub const RIGHTS: [Capability; 18] = [
    right(Thread::Loop, BPF, "writes maps"),
    Capability {
        needed: |uses| uses.bypass_mark,
        ..right(Thread::Loop, NET_ADMIN, "gives its probes the mark of --bypass-mark")
    },
    Capability {
        needed: |uses| uses.other_version,
        ..right(Thread::Loop, NET_ADMIN, "takes hooks over from another version")
    },
    Capability { needed: |uses| uses.other_version, ..right(Thread::Loop, SYS_ADMIN, "removes what is left of it") },
    Capability { needed: |uses| uses.file, ..right(Thread::Loop, DAC_READ_SEARCH, "passes it on to the readers") },
    Capability {
        needed: |uses| uses.file,
        ..right(Thread::Readers, DAC_READ_SEARCH, "reads the file of --file, whoever it belongs to")
    },
    right(Thread::Sockets, BPF, "asks the map of what sockets remember"),
    right(Thread::Sockets, NET_ADMIN, "ends sockets, and asks sock_diag for what the hooks keep with them"),
    right(Thread::Sockets, SYS_ADMIN, "enters other network namespaces"),
    right(Thread::Sockets, SYS_PTRACE, "finds the namespaces of programs, and takes copies of their sockets"),
    right(Thread::Sockets, DAC_READ_SEARCH, "finds which sockets the programs of other users have open"),
    Capability {
        needed: |uses| uses.interfaces,
        ..right(Thread::Interfaces, BPF, "attaches hooks to interfaces that come, and says in a map which they are")
    },
    Capability {
        needed: |uses| uses.interfaces,
        ..right(Thread::Interfaces, NET_ADMIN, "does so by filters of clsact before Linux 6.6")
    },
    right(Thread::Status, BPF, "passes it on to who looks at the maps"),
    right(Thread::Look, BPF, "reads maps"),
    right(Thread::Host, BPF, "asks about programs of others"),
    right(Thread::Host, NET_ADMIN, "asks which programs of others are attached to the cgroup"),
    right(Thread::Host, SYS_ADMIN, "asks for their names"),
];

/// The rights of a kind of thread, where these are what is switched on.
pub fn rights(thread: Thread, uses: EnabledFeatures) -> impl Iterator<Item = &'static Capability> {
    RIGHTS.iter().filter(move |right| right.thread == thread && (right.needed)(&uses))
}

/// Gives up, for this process and for good, what no thread needs: capabilities, those that a program it might become
/// would get, and system calls that it never makes. The calling thread keeps what all kinds of threads need together, and
/// may listen on ports below 1024, until it says with [`keep`] which kind it is; threads that it starts too.
///
/// To be called before there are others. What this process does not have it cannot give up: that is no error.
///
/// # Errors
/// The kernel refuses.
pub fn give_up(uses: EnabledFeatures) -> rustix::io::Result<()> {
    let all = Thread::ALL.into_iter().flat_map(|thread| rights(thread, uses));
    leave(set(all) | CapabilitySet::NET_BIND_SERVICE, true)
}

/// Gives up everything: for the process that only opens sockets.
///
/// # Errors
/// The kernel refuses.
pub fn give_up_all() -> rustix::io::Result<()> {
    leave(CapabilitySet::empty(), true)
}

/// Gives up what this kind of thread does not need, for the calling thread and those that it starts.
///
/// # Errors
/// The kernel refuses.
pub fn drop_to(thread: Thread, uses: EnabledFeatures) -> rustix::io::Result<()> {
    leave(set(rights(thread, uses)), false)
}

fn set(rights: impl Iterator<Item = &'static Capability>) -> CapabilitySet {
    rights.fold(CapabilitySet::empty(), |all, right| all | CapabilitySet::from_bits_retain(1 << right.number))
}

fn leave(wanted: CapabilitySet, bounding: bool) -> rustix::io::Result<()> {
    let has = capabilities(None)?.permitted;
    let left = within(has, wanted);
    if bounding {
        // Numbers that the kernel does not know, and a process that may not do this, change nothing: what is not
        // permitted cannot come back, since nothing new is gained (no_new_privs).
        for number in (0..u64::BITS).filter(|number| left.bits() & 1 << number == 0) {
            let _ = remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number));
        }
        clear_ambient_capability_set()?;
        set_no_new_privs(true)?;
    }
    set_capabilities(None, CapabilitySets { effective: left, permitted: left, inheritable: CapabilitySet::empty() })
}

/// What is left of `has`. `CAP_SYS_ADMIN` stands in for `CAP_BPF` where a container runtime does not know that one yet.
fn within(has: CapabilitySet, wanted: CapabilitySet) -> CapabilitySet {
    let stands_in = wanted.contains(CapabilitySet::BPF) && !has.contains(CapabilitySet::BPF);
    has & if stands_in { wanted | CapabilitySet::SYS_ADMIN } else { wanted }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYTHING: EnabledFeatures =
        EnabledFeatures { bypass_mark: true, file: true, interfaces: true, other_version: true };

    #[test]
    fn what_is_switched_off_needs_no_capability() {
        let names = |thread, uses| rights(thread, uses).map(|right| right.name).collect::<Vec<_>>();
        assert_eq!(names(Thread::Loop, EnabledFeatures::default()), ["CAP_BPF"]);
        assert_eq!(names(Thread::Readers, EnabledFeatures::default()), Vec::<&str>::new());
        let without = EnabledFeatures { other_version: false, ..EVERYTHING };
        assert_eq!(names(Thread::Loop, without), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_DAC_READ_SEARCH"]);
        assert_eq!(names(Thread::Readers, EVERYTHING), ["CAP_DAC_READ_SEARCH"]);
    }

    #[test]
    fn numbers_and_names_are_those_of_the_kernel() {
        for right in RIGHTS {
            let known = CapabilitySet::from_name(right.name.trim_start_matches("CAP_")).unwrap();
            assert_eq!(known.bits(), 1 << right.number, "{}", right.name);
        }
    }

    #[test]
    fn a_thread_can_only_start_threads_that_may_do_no_more_than_itself() {
        for uses in [EnabledFeatures::default(), EVERYTHING] {
            assert!(set(rights(Thread::Loop, uses)).contains(set(rights(Thread::Readers, uses))));
        }
    }

    #[test]
    fn without_cap_bpf_the_capability_it_was_split_from_stays() {
        let admin = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
        assert_eq!(within(admin, CapabilitySet::BPF), CapabilitySet::SYS_ADMIN);
        assert_eq!(within(admin | CapabilitySet::BPF, CapabilitySet::BPF), CapabilitySet::BPF);
        assert_eq!(within(CapabilitySet::NET_ADMIN, CapabilitySet::NET_ADMIN), CapabilitySet::NET_ADMIN);
    }

    #[test]
    fn the_documents_say_the_same() {
        let said = include_str!("../../../docs/operating.md");
        for right in RIGHTS {
            let row = format!("| `{}` | `{}` | {} |", right.thread.name(), right.name, right.why);
            assert!(said.contains(&row), "docs/operating.md lacks {row}");
        }
    }
}
