//! The network namespaces of this host: found by the processes in them, entered by a thread that nothing else runs on.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
};
use rustix::thread::{CapabilitySet, capabilities};

/// The inode of the first pid namespace, in every kernel (PROC_PID_INIT_INO).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Why only some namespaces can be seen from here, and what to do about it; `None` where all can.
pub(super) fn blind() -> Option<String> {
    let ours = fs::read_link("/proc/self/ns/pid").ok();
    let all_processes = ours.as_deref() == Some(Path::new(FIRST_PID_NAMESPACE));
    // Of this thread: the kernel asks it, and nobody else.
    let follows_links = capabilities(None).map_or(true, |has| has.effective.contains(CapabilitySet::SYS_PTRACE));
    unseen(all_processes, follows_links)
}

/// The same from whether /proc has the processes of the whole host, and whether this thread may ask where those are that
/// may do more than it (proc_pid_ns(5) and ptrace(2): PTRACE_MODE_READ_FSCREDS).
fn unseen(all_processes: bool, follows_links: bool) -> Option<String> {
    let (whose, remedy) = match (all_processes, follows_links) {
        (true, true) => return None,
        (true, false) => (
            "other programs, in network namespaces of their own,",
            "give the agent CAP_SYS_PTRACE: --cap-add SYS_PTRACE for a container, CapabilityBoundingSet= for a unit",
        ),
        (false, _) => ("other containers", "run the container with --pid=host"),
    };
    Some(format!(
        "sockets of {whose} cannot be seen: connections to a replica that is gone are not reset there, and counts of open \
         connections are not checked; {remedy}"
    ))
}

/// A file for each network namespace that some process is in, by inode.
///
/// Those that only hold sockets, with no process in them, are not found.
pub(super) fn found() -> io::Result<BTreeMap<PathBuf, PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(entry) = entry else { continue };
        if !entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit) {
            continue;
        }
        let file = entry.path().join("ns/net");
        // Else it has ended meanwhile, has no namespaces left, or may do more than this process (init, where a container
        // lacks a capability): its namespace is seldom one of its own.
        if let Ok(inode) = fs::read_link(&file) {
            found.entry(inode).or_insert(file);
        }
    }
    Ok(found)
}

/// The way back to where this thread came from.
pub(super) struct NetnsGuard(File);

impl NetnsGuard {
    /// Where this thread is now.
    pub(super) fn here() -> io::Result<Self> {
        File::open("/proc/thread-self/ns/net").map(Self)
    }

    /// Does some work in a namespace, and comes back. `None` where the namespace has gone meanwhile.
    ///
    /// A thread that cannot come back must not go on: the process ends.
    pub(super) fn run_in<T>(&self, namespace: &Path, work: impl FnOnce() -> io::Result<T>) -> io::Result<Option<T>> {
        let file = match File::open(namespace) {
            Ok(file) => file,
            Err(error) if gone(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        setns(file, CloneFlags::CLONE_NEWNET)?;
        let done = work();
        if let Err(error) = setns(&self.0, CloneFlags::CLONE_NEWNET) {
            panic!("cannot come back to the namespace of the agent: {error}");
        }
        done.map(Some)
    }
}

fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ESRCH as i32)
}

#[cfg(test)]
mod tests {
    use super::unseen;

    #[test]
    fn what_hides_sockets_is_named_with_its_remedy() {
        assert_eq!(unseen(true, true), None);
        assert!(unseen(true, false).unwrap().contains("; give the agent CAP_SYS_PTRACE: "));
        for follows_links in [true, false] {
            assert!(unseen(false, follows_links).unwrap().ends_with("; run the container with --pid=host"));
        }
    }
}
