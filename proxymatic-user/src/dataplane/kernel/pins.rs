//! The paths of the pins, and the lock on them.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsFd as _,
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use proxymatic_common::{ABI_VERSION, maps};

use super::{bpf, hook_names::HOOKS};
use crate::dataplane::Error;

/// The folders of the pins of one map ABI version: `<bpffs>/v<ABI>/{links,programs,maps}`.
#[derive(Clone, Debug)]
pub struct Pins {
    bpffs: PathBuf,
    pub(super) root: PathBuf,
    version: u32,
}

/// The folders of one map ABI version.
pub(super) const FOLDERS: [&str; 3] = ["links", "programs", "maps"];

/// The lock on the pins, held until it is dropped.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not read")] Flock<File>);

impl Pins {
    /// The pins of this map ABI version under a folder, which need not exist.
    pub fn at(bpffs: &Path) -> Self {
        Self::of(bpffs, ABI_VERSION)
    }

    /// The pins of any map ABI version under a folder.
    pub(super) fn of(bpffs: &Path, version: u32) -> Self {
        Self { bpffs: bpffs.to_owned(), root: bpffs.join(format!("v{version}")), version }
    }

    /// Takes the lock, and creates missing folders, readable by root only.
    ///
    /// # Errors
    /// Fails if another agent has the lock, or if a folder cannot be created.
    pub(super) fn make(bpffs: &Path) -> Result<(Self, Lock), Error> {
        let pins = Self::at(bpffs);
        make(bpffs)?;
        let lock = pins.lock()?;
        for folder in FOLDERS {
            make(&pins.root.join(folder))?;
        }
        Ok((pins, lock))
    }

    /// The map ABI version of these pins.
    pub const fn version(&self) -> u32 {
        self.version
    }

    pub(super) fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// The pin of a map.
    pub fn map(&self, name: &str) -> PathBuf {
        self.root.join("maps").join(name)
    }

    /// The pin of a hook's link.
    pub fn link(&self, hook: &str) -> PathBuf {
        self.root.join("links").join(hook)
    }

    /// The pin of a hook's program.
    pub fn program(&self, hook: &str) -> PathBuf {
        self.root.join("programs").join(hook)
    }

    /// Returns the error for pins that cannot be read.
    pub(crate) fn missing(&self) -> Error {
        let path = self.root.display().to_string();
        if let Err(error) = fs::metadata(&self.root)
            && error.kind() == io::ErrorKind::PermissionDenied
        {
            return Error::host(format!("this user may not read {path}"), "run it as root (sudo proxymatic ...)");
        }
        match self.other_versions().iter().find(|other| other.serves()) {
            Some(other) => Error::host(
                format!("nothing is pinned under {path}: map ABI version {} serves here", other.version),
                "use the `proxymatic` of that version, or start the agent of this one (proxymatic run)",
            ),
            None => Error::NoPins { path },
        }
    }

    /// Takes the lock. It is on the folder itself, so that every process that sees the pins sees the lock, from any
    /// container.
    ///
    /// # Errors
    /// Fails if another agent has the lock.
    pub(super) fn lock(&self) -> Result<Lock, Error> {
        let path = self.bpffs.display().to_string();
        let folder = File::open(&self.bpffs).map_err(|error| Error::kernel(format!("open {path}"), &error))?;
        let inode = folder.metadata().map(|data| data.ino()).unwrap_or_default();
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Lock(lock)),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
                Err(Error::Locked { path, holder: holder(&locks, inode) })
            }
            Err((_, error)) => Err(Error::kernel(format!("lock {path}"), &error)),
        }
    }

    /// Takes the lock of a command that reads the events while no agent runs: each event reaches one reader only. An
    /// agent does not take this lock; a command stops reading when an agent starts.
    ///
    /// # Errors
    /// Fails if another command has the lock.
    pub fn lock_events(&self) -> Result<Lock, Error> {
        let folder = self.root.join("maps");
        let path = folder.display().to_string();
        let folder = File::open(&folder).map_err(|_| self.missing())?;
        let inode = folder.metadata().map(|data| data.ino()).unwrap_or_default();
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Lock(lock)),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
                Err(Error::host(
                    format!("{} already reads the events of {path}", holder(&locks, inode)),
                    "without an agent only one process can read them: start the agent (proxymatic run), or end that process",
                ))
            }
            Err((_, error)) => Err(Error::kernel(format!("lock {path}"), &error)),
        }
    }

    /// Checks that no agent has the lock.
    ///
    /// # Errors
    /// Fails if an agent has the lock.
    pub fn ensure_unlocked(&self) -> Result<(), Error> {
        if self.bpffs.exists() { self.lock().map(drop) } else { Ok(()) }
    }

    /// Removes the pins of a hook, which detaches it.
    pub(super) fn unpin(&self, hook: &str) {
        for path in [self.link(hook), self.program(hook)] {
            if let Err(error) = remove(&path) {
                tracing::error!("cannot remove {}: {error}; the hook stays attached", path.display());
            }
        }
    }

    /// The pins of this map ABI version without those of interfaces: first the hooks, `connect` hooks before the
    /// others.
    pub(super) fn ours(&self) -> impl Iterator<Item = PathBuf> {
        let hooks = HOOKS.iter().rev();
        let links = hooks.clone().map(|hook| self.link(hook));
        let programs = hooks.map(|hook| self.program(hook));
        links.chain(programs).chain(maps::ALL.iter().map(|map| self.map(map.name)))
    }

    pub(super) fn remove_folders(&self) {
        for folder in FOLDERS.into_iter().chain([""]) {
            // Fails if the folder is not empty, because another program has put something there.
            let _ = fs::remove_dir(self.root.join(folder));
        }
    }
}

/// Removes pins, and returns those that existed.
pub(super) fn unpin_all(pins: impl IntoIterator<Item = PathBuf>) -> Result<Vec<PathBuf>, Error> {
    let mut removed = Vec::new();
    for path in pins {
        match remove(&path) {
            Ok(true) => removed.push(path),
            Ok(false) => {}
            Err(error) => return Err(Error::kernel(format!("remove {}", path.display()), &error)),
        }
    }
    Ok(removed)
}

/// Removes a pin; returns false if there was none. A link's program no longer runs when this returns.
pub(super) fn remove(path: &Path) -> io::Result<bool> {
    if path.parent().is_some_and(|folder| folder.ends_with("links"))
        && let Ok(link) = bpf::open(path)
        && let Err(error) = bpf::detach_link(link.as_fd())
    {
        tracing::debug!("{}: cannot detach by force, so removing the pin does: {error}", path.display());
    }
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn make(folder: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
        let what = format!("cannot create {}: {error}", folder.display());
        Error::host(what, "mount the BPF file system read-write, or choose another folder with --bpffs")
    })
}

/// Returns the process that holds a lock, from /proc/locks and an inode. The kernel hides process ids across pid
/// namespaces.
fn holder(locks: &str, inode: u64) -> String {
    let of_inode = |line: &&str| {
        let field = line.split_whitespace().find(|field| field.matches(':').count() == 2);
        line.contains("FLOCK") && field.and_then(|field| field.rsplit(':').next()) == Some(&inode.to_string())
    };
    let pid = locks.lines().find(of_inode).and_then(|line| line.split_whitespace().nth(4));
    match pid.and_then(|pid| pid.parse::<u32>().ok()).filter(|pid| *pid != 0) {
        Some(pid) => format!("process {pid}"),
        None => "a process that cannot be seen from here (in another container?)".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holder_of_a_lock_is_found_by_inode() {
        let locks = "1: POSIX  ADVISORY  WRITE 811 00:1b:42 0 EOF\n2: FLOCK  ADVISORY  WRITE 4711 00:1b:42 0 EOF\n";
        assert_eq!(holder(locks, 42), "process 4711");
        assert!(holder(locks, 43).starts_with("a process that cannot be seen"));
        assert!(holder("2: FLOCK  ADVISORY  WRITE 0 00:1b:42 0 EOF\n", 42).starts_with("a process that cannot"));
    }
}
