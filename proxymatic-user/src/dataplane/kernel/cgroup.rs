//! The root of the host's cgroup2 tree, found from wherever the agent runs.
//!
//! In a cgroup namespace of its own (what container runtimes give by default) a process sees its own cgroup as the root:
//! as `/` in its mounts and in `/proc/PID/cgroup`. Hooks that are attached there run for nobody else. What cannot be
//! mistaken is the number of the folder: the kernel counts the nodes of a tree from its root (kernfs, 5.5 and later).

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    sync::OnceLock,
    thread,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::statfs::statfs,
};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::host::CGROUP2;
use crate::dataplane::Error;

/// The number of the root of a tree.
const ROOT: u64 = 1;
/// The inode of the first cgroup namespace, in every kernel (PROC_CGROUP_INIT_INO of include/linux/proc_ns.h).
const FIRST: u64 = 0xefff_fffb;

/// Where the root of the host's cgroup2 tree is to be found; mounted, for this process alone, where it is nowhere.
///
/// # Errors
/// It cannot be seen from here.
pub fn cgroup_root() -> Result<PathBuf, Error> {
    // Nothing of a mount that is attached nowhere outlives this process, nor shows anywhere else.
    static MOUNTED: OnceLock<OwnedFd> = OnceLock::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if let Some(path) = root_among(&mounts, number) {
        return Ok(path);
    }
    let path = |fd: &OwnedFd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    if let Some(fd) = MOUNTED.get() {
        return Ok(path(fd));
    }
    let first = is_first("/proc/self/ns/cgroup");
    match if first { mount() } else { mount_as_the_host() } {
        Ok(fd) if number(&path(&fd)) == Some(ROOT) => Ok(path(MOUNTED.get_or_init(|| fd))),
        Ok(_) => Err(unseen(first, "what can be mounted here is a part of it")),
        Err(error) => Err(unseen(first, &error.to_string())),
    }
}

fn unseen(first: bool, reason: &str) -> Error {
    let shared = "give the container the host's (-v /sys/fs/cgroup:/sys/fs/cgroup)";
    if first {
        return Error::host(
            format!("no cgroup2 file system is mounted here, and none can be mounted ({reason})"),
            format!(
                "mount one (mount -t cgroup2 none /sys/fs/cgroup/unified), {shared}, or name a folder of one with --cgroup"
            ),
        );
    }
    Error::host(
        format!(
            "this container has a cgroup namespace of its own, where its own cgroup looks like the root: attached there, \
             no other program would be served; the host's cannot be reached ({reason})"
        ),
        format!("start the container with --cgroupns host, {shared}, or name a folder with --cgroup"),
    )
}

/// The first of the cgroup2 mounts that shows the root of the tree. What the kernel calls the root of a mount is seen from
/// this process's namespace, and so proves nothing.
fn root_among(mountinfo: &str, number: impl Fn(&Path) -> Option<u64>) -> Option<PathBuf> {
    cgroup2(mountinfo).map(|(_, point)| point).find(|point| number(point) == Some(ROOT))
}

/// Whether a folder is a part of the tree that only looks like its root from here.
pub(super) fn is_own(folder: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    looks_like_root(&mounts, &folder, number)
}

fn looks_like_root(mountinfo: &str, folder: &Path, number: impl Fn(&Path) -> Option<u64>) -> bool {
    let mut mounts = cgroup2(mountinfo);
    mounts.any(|(root, point)| root == "/" && point == folder) && number(folder).is_some_and(|number| number != ROOT)
}

/// Root and mount point of each cgroup2.
fn cgroup2(mountinfo: &str) -> impl Iterator<Item = (&str, PathBuf)> {
    mountinfo.lines().filter_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        filesystem.starts_with("cgroup2 ").then(|| (root, PathBuf::from(unescape(point))))
    })
}

/// The kernel writes blanks and backslashes in paths as octal (proc_pid_mountinfo(5)).
fn unescape(path: &str) -> String {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// The number of a folder, where it is one of a cgroup2 tree: another file system may be mounted over it.
fn number(folder: &Path) -> Option<u64> {
    let is = statfs(folder).is_ok_and(|stat| stat.filesystem_type() == CGROUP2);
    fs::metadata(folder).ok().filter(|_| is).map(|data| data.ino())
}

fn is_first(namespace: &str) -> bool {
    fs::metadata(namespace).is_ok_and(|data| data.ino() == FIRST)
}

/// A cgroup2 tree as the namespace of this thread has it. It needs no controllers, and so goes beside cgroup v1.
fn mount() -> io::Result<OwnedFd> {
    let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// The same as the host's first process has it, which is seen where the container shares the host's process ids. By a
/// thread of its own, whose namespace is then another one.
fn mount_as_the_host() -> io::Result<OwnedFd> {
    const HOST: &str = "/proc/1/ns/cgroup";
    let namespace = File::open(HOST)?;
    if !is_first(HOST) {
        return Err(io::Error::other("process 1 is in another container"));
    }
    let work = || {
        setns(&namespace, CloneFlags::CLONE_NEWCGROUP)?;
        mount()
    };
    thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|_| Err(io::Error::other("a thread has died")))
}

/// Opens the cgroup of a number; `None` where there is none.
///
/// # Errors
/// The tree cannot be seen from here.
pub(super) fn open(wanted: u64) -> Result<Option<File>, Error> {
    let mut folders = vec![cgroup_root()?];
    while let Some(folder) = folders.pop() {
        if number(&folder) == Some(wanted) {
            return Ok(File::open(folder).ok());
        }
        // A cgroup may go while others are looked at.
        let below = fs::read_dir(folder).into_iter().flatten().flatten();
        folders.extend(below.filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir())).map(|it| it.path()));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "30 23 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                          31 23 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    /// As a container with a cgroup namespace of its own sees it: its own cgroup, and the host's, given to it.
    const CONTAINER: &str = "40 23 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup ro\n\
                             41 23 0:26 /../.. /host/cgroup ro - cgroup2 cgroup ro\n";

    fn found(mountinfo: &str, root: &str) -> Option<PathBuf> {
        root_among(mountinfo, |path| Some(if path == Path::new(root) { 1 } else { 4711 }))
    }

    #[test]
    fn the_root_is_found_on_unified_and_hybrid_hosts() {
        assert_eq!(found(UNIFIED, "/sys/fs/cgroup"), Some("/sys/fs/cgroup".into()));
        assert_eq!(found(HYBRID, "/sys/fs/cgroup/unified"), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(found("1 2 0:1 / /a\\040b rw - cgroup2 x rw", "/a b"), Some("/a b".into()));
        assert_eq!(found("30 23 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw", "/sys/fs/cgroup/systemd"), None);
    }

    #[test]
    fn ones_own_cgroup_is_not_taken_for_the_root_and_the_hosts_is_wherever_it_was_mounted() {
        assert_eq!(found(CONTAINER, "/host/cgroup"), Some("/host/cgroup".into()));
        assert_eq!(found(CONTAINER, "/nowhere"), None);
        assert_eq!(root_among(CONTAINER, |_| None), None);
    }

    #[test]
    fn a_folder_that_only_looks_like_the_root_is_told_from_one_that_is_named_on_purpose() {
        let own = |folder, number| looks_like_root(CONTAINER, Path::new(folder), |_| Some(number));
        assert!(own("/sys/fs/cgroup", 4711));
        assert!(!own("/sys/fs/cgroup", 1));
        assert!(!own("/host/cgroup", 4711));
        assert!(!own("/sys/fs/cgroup/service", 4711));
    }

    #[test]
    fn what_is_missing_is_said_with_the_remedy() {
        let own = unseen(false, "EPERM").to_string();
        assert!(own.starts_with("this container has a cgroup namespace of its own"), "{own}");
        assert!(own.contains("--cgroupns host") && own.contains("-v /sys/fs/cgroup:/sys/fs/cgroup"), "{own}");
        let none = unseen(true, "EPERM").to_string();
        assert!(none.contains("mount -t cgroup2 none /sys/fs/cgroup/unified") && none.contains("--cgroup"), "{none}");
    }
}
