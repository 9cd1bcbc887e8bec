//! Finds the root of the host's cgroup2 tree, also from within a container.
//!
//! In a cgroup namespace of its own, the default of container runtimes, a process sees its own cgroup as `/`: in its
//! mounts and in `/proc/PID/cgroup`. Hooks attached there serve no other program. The inode of the folder is
//! reliable: the kernel numbers the nodes of a tree from its root (kernfs, 5.5 and later).

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

/// The inode of the root of a tree.
const ROOT: u64 = 1;
/// The inode of the initial cgroup namespace, in every kernel (PROC_CGROUP_INIT_INO of include/linux/proc_ns.h).
const INITIAL: u64 = 0xefff_fffb;

/// Returns a path to the root of the host's cgroup2 tree. If it is mounted nowhere, mounts it for this process alone.
///
/// # Errors
/// Fails if this process cannot reach the root.
pub fn cgroup_root() -> Result<PathBuf, Error> {
    // A detached mount ends with this process and is visible nowhere else.
    static MOUNTED: OnceLock<OwnedFd> = OnceLock::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if let Some(path) = find_root(&mounts, inode) {
        return Ok(path);
    }
    let path = |fd: &OwnedFd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    if let Some(fd) = MOUNTED.get() {
        return Ok(path(fd));
    }
    let initial = is_initial("/proc/self/ns/cgroup");
    match if initial { mount() } else { mount_in_host_namespace() } {
        Ok(fd) if inode(&path(&fd)) == Some(ROOT) => Ok(path(MOUNTED.get_or_init(|| fd))),
        Ok(_) => Err(no_root(initial, "a mount from here shows only a part of the tree")),
        Err(error) => Err(no_root(initial, &error.to_string())),
    }
}

fn no_root(initial: bool, reason: &str) -> Error {
    let shared = "mount the host's into the container (-v /sys/fs/cgroup:/sys/fs/cgroup)";
    if initial {
        return Error::host(
            format!("no cgroup2 file system is mounted here, and mounting one failed ({reason})"),
            format!(
                "mount one (mount -t cgroup2 none /sys/fs/cgroup/unified), {shared}, or choose a folder of one with --cgroup"
            ),
        );
    }
    Error::host(
        format!(
            "this container has a cgroup namespace of its own, in which its own cgroup looks like the root: hooks attached \
             there would serve no other program; the host's root is out of reach ({reason})"
        ),
        format!("start the container with --cgroupns host, {shared}, or choose a folder with --cgroup"),
    )
}

/// Returns the first cgroup2 mount point whose inode is that of a root. The root field of mountinfo proves nothing,
/// because it is relative to the cgroup namespace of this process.
fn find_root(mountinfo: &str, inode: impl Fn(&Path) -> Option<u64>) -> Option<PathBuf> {
    cgroup2(mountinfo).map(|(_, point)| point).find(|point| inode(point) == Some(ROOT))
}

/// Returns true if a folder looks like the root of the tree from here, but is not.
pub(super) fn is_own_root(folder: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    looks_like_root(&mounts, &folder, inode)
}

fn looks_like_root(mountinfo: &str, folder: &Path, inode: impl Fn(&Path) -> Option<u64>) -> bool {
    let mut mounts = cgroup2(mountinfo);
    mounts.any(|(root, point)| root == "/" && point == folder) && inode(folder).is_some_and(|inode| inode != ROOT)
}

/// Returns the root and the mount point of each cgroup2 mount.
fn cgroup2(mountinfo: &str) -> impl Iterator<Item = (&str, PathBuf)> {
    mountinfo.lines().filter_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        filesystem.starts_with("cgroup2 ").then(|| (root, PathBuf::from(unescape(point))))
    })
}

/// Decodes the octal escapes of blanks and backslashes in mountinfo (proc_pid_mountinfo(5)).
fn unescape(path: &str) -> String {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Returns the inode of a folder of a cgroup2 tree; `None` if another file system is mounted over it.
fn inode(folder: &Path) -> Option<u64> {
    let is = statfs(folder).is_ok_and(|stat| stat.filesystem_type() == CGROUP2);
    fs::metadata(folder).ok().filter(|_| is).map(|data| data.ino())
}

fn is_initial(namespace: &str) -> bool {
    fs::metadata(namespace).is_ok_and(|data| data.ino() == INITIAL)
}

/// Mounts the cgroup2 tree of this thread's namespace. It needs no controllers, so it works beside cgroup v1.
fn mount() -> io::Result<OwnedFd> {
    let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// Mounts the tree of the namespace of process 1, if the container shares the host's process ids. Runs on a thread of
/// its own, because it changes the thread's cgroup namespace.
fn mount_in_host_namespace() -> io::Result<OwnedFd> {
    const HOST: &str = "/proc/1/ns/cgroup";
    let namespace = File::open(HOST)?;
    if !is_initial(HOST) {
        return Err(io::Error::other("process 1 is not in the host's cgroup namespace"));
    }
    let work = || {
        setns(&namespace, CloneFlags::CLONE_NEWCGROUP)?;
        mount()
    };
    thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
}

/// Opens the cgroup with an inode; `None` if there is none.
///
/// # Errors
/// Fails if this process cannot reach the root of the tree.
pub(super) fn open(wanted: u64) -> Result<Option<File>, Error> {
    let mut folders = vec![cgroup_root()?];
    while let Some(folder) = folders.pop() {
        if inode(&folder) == Some(wanted) {
            return Ok(File::open(folder).ok());
        }
        // A cgroup may be removed during the walk.
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
    /// The mounts of a container with a cgroup namespace of its own: its own cgroup, and the host's tree at
    /// /host/cgroup.
    const CONTAINER: &str = "40 23 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup ro\n\
                             41 23 0:26 /../.. /host/cgroup ro - cgroup2 cgroup ro\n";

    fn found(mountinfo: &str, root: &str) -> Option<PathBuf> {
        find_root(mountinfo, |path| Some(if path == Path::new(root) { 1 } else { 4711 }))
    }

    #[test]
    fn root_is_found_on_unified_and_hybrid_hosts() {
        assert_eq!(found(UNIFIED, "/sys/fs/cgroup"), Some("/sys/fs/cgroup".into()));
        assert_eq!(found(HYBRID, "/sys/fs/cgroup/unified"), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(found("1 2 0:1 / /a\\040b rw - cgroup2 x rw", "/a b"), Some("/a b".into()));
        assert_eq!(found("30 23 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw", "/sys/fs/cgroup/systemd"), None);
    }

    #[test]
    fn own_cgroup_is_not_taken_for_the_root() {
        assert_eq!(found(CONTAINER, "/host/cgroup"), Some("/host/cgroup".into()));
        assert_eq!(found(CONTAINER, "/nowhere"), None);
        assert_eq!(find_root(CONTAINER, |_| None), None);
    }

    #[test]
    fn only_a_mounted_false_root_looks_like_the_root() {
        let own = |folder, number| looks_like_root(CONTAINER, Path::new(folder), |_| Some(number));
        assert!(own("/sys/fs/cgroup", 4711));
        assert!(!own("/sys/fs/cgroup", 1));
        assert!(!own("/host/cgroup", 4711));
        assert!(!own("/sys/fs/cgroup/service", 4711));
    }

    #[test]
    fn missing_root_is_reported_with_its_remedy() {
        let own = no_root(false, "EPERM").to_string();
        assert!(own.starts_with("this container has a cgroup namespace of its own"), "{own}");
        assert!(own.contains("--cgroupns host") && own.contains("-v /sys/fs/cgroup:/sys/fs/cgroup"), "{own}");
        let none = no_root(true, "EPERM").to_string();
        assert!(none.contains("mount -t cgroup2 none /sys/fs/cgroup/unified") && none.contains("--cgroup"), "{none}");
    }
}
