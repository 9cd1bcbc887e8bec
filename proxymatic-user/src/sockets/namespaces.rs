//! The network namespaces of this host: found through the processes in them, entered by a dedicated thread.

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

/// Returns why this process cannot see all namespaces, with the remedy; `None` if it can.
pub(super) fn limitation() -> Option<String> {
    let ours = fs::read_link("/proc/self/ns/pid").ok();
    let all_processes = ours.as_deref() == Some(Path::new(FIRST_PID_NAMESPACE));
    // The capabilities of this thread, because the kernel checks those of the thread that asks.
    let follows_links = capabilities(None).map_or(true, |has| has.effective.contains(CapabilitySet::SYS_PTRACE));
    limitation_for(all_processes, follows_links)
}

/// Returns the limitation for two facts: whether /proc shows all processes of the host, and whether this thread may
/// read the namespaces of processes with more capabilities (proc_pid_ns(5); ptrace(2): PTRACE_MODE_READ_FSCREDS).
fn limitation_for(all_processes: bool, follows_links: bool) -> Option<String> {
    let (whose, remedy) = match (all_processes, follows_links) {
        (true, true) => return None,
        (true, false) => (
            "other programs, in network namespaces of their own,",
            "give the agent CAP_SYS_PTRACE: --cap-add SYS_PTRACE for a container, CapabilityBoundingSet= for a unit",
        ),
        (false, _) => ("other containers", "run the container with --pid=host"),
    };
    Some(format!(
        "sockets of {whose} cannot be seen: connections to a replica that is gone are not reset there, counts of open \
         connections are not checked, and allow lists refuse these programs by their address; {remedy}"
    ))
}

/// Returns a file for each network namespace that has a process, by inode.
///
/// Does not find a namespace that sockets keep alive without a process.
pub(super) fn all() -> io::Result<BTreeMap<PathBuf, PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(entry) = entry else { continue };
        if !entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit) {
            continue;
        }
        let file = entry.path().join("ns/net");
        // On failure the process has ended, has no namespaces left, or has more capabilities than this one (init, if
        // a container lacks a capability). Such a process is rarely in a namespace of its own.
        if let Ok(inode) = fs::read_link(&file) {
            found.entry(inode).or_insert(file);
        }
    }
    Ok(found)
}

/// The network namespace that a thread returns to.
pub(super) struct NetnsGuard(File);

impl NetnsGuard {
    /// Opens the namespace that this thread is in.
    pub(super) fn here() -> io::Result<Self> {
        File::open("/proc/thread-self/ns/net").map(Self)
    }

    /// Runs `work` in a namespace, and returns to the first one. Returns `None` if the namespace is gone.
    ///
    /// # Panics
    /// Panics if the thread cannot return, because nothing else may run in the wrong namespace.
    pub(super) fn run_in<T>(&self, namespace: &Path, work: impl FnOnce() -> io::Result<T>) -> io::Result<Option<T>> {
        let file = match File::open(namespace) {
            Ok(file) => file,
            Err(error) if has_ended(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        setns(file, CloneFlags::CLONE_NEWNET)?;
        let done = work();
        if let Err(error) = setns(&self.0, CloneFlags::CLONE_NEWNET) {
            panic!("cannot return to the network namespace of the agent: {error}");
        }
        done.map(Some)
    }
}

fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ESRCH as i32)
}

#[cfg(test)]
mod tests {
    use super::limitation_for;

    #[test]
    fn limitation_names_its_remedy() {
        assert_eq!(limitation_for(true, true), None);
        assert!(limitation_for(true, false).unwrap().contains("; give the agent CAP_SYS_PTRACE: "));
        for follows_links in [true, false] {
            assert!(limitation_for(false, follows_links).unwrap().ends_with("; run the container with --pid=host"));
        }
    }
}
