//! Where everything is pinned, and whose it is.

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

use super::{
    HOOKS, bpf,
    interfaces::{self, PACKET_HOOKS},
};
use crate::dataplane::Error;

/// The folders of the pins: `<bpffs>/v<ABI>/{links,programs,maps}`.
#[derive(Clone, Debug)]
pub struct Pins {
    bpffs: PathBuf,
    pub(super) root: PathBuf,
    version: u32,
}

/// The folders of a version.
pub(super) const FOLDERS: [&str; 3] = ["links", "programs", "maps"];

/// Says that the pins are ours, for as long as it lives.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not read")] Flock<File>);

impl Pins {
    /// The pins under a folder, whether there are any or not.
    pub fn at(bpffs: &Path) -> Self {
        Self::of(bpffs, ABI_VERSION)
    }

    /// The same of another version.
    pub(super) fn of(bpffs: &Path, version: u32) -> Self {
        Self { bpffs: bpffs.to_owned(), root: bpffs.join(format!("v{version}")), version }
    }

    /// Takes the lock, and makes the folders where they are missing, for root only.
    ///
    /// # Errors
    /// Another agent has the lock, or they cannot be made.
    pub(super) fn make(bpffs: &Path) -> Result<(Self, Lock), Error> {
        let pins = Self::at(bpffs);
        make(bpffs)?;
        let lock = pins.lock()?;
        for folder in FOLDERS {
            make(&pins.root.join(folder))?;
        }
        Ok((pins, lock))
    }

    /// The version of the layouts of what is pinned here.
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

    /// Why nothing can be read here.
    pub(crate) fn missing(&self) -> Error {
        let path = self.root.display().to_string();
        if let Err(error) = fs::metadata(&self.root)
            && error.kind() == io::ErrorKind::PermissionDenied
        {
            return Error::host(format!("{path} is not for this user to read"), "run it as root (sudo proxymatic ...)");
        }
        match self.other_versions().iter().find(|other| other.serves()) {
            Some(other) => Error::host(
                format!("nothing is pinned under {path}: version {} serves here", other.version),
                "use the `proxymatic` of that version, or start the agent of this one (proxymatic run)",
            ),
            None => Error::NoPins { path },
        }
    }

    /// Takes the lock. It is on the folder itself, not on a file elsewhere: who can see the pins sees the lock, from
    /// whatever container.
    ///
    /// # Errors
    /// Another agent has it.
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

    /// Takes the place of the one who reads the events without an agent: two would take them from each other. An agent
    /// does not ask: it comes first, and who reads here leaves when one is there.
    ///
    /// # Errors
    /// Somebody has it.
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
                    format!("{} reads the events of {path} already", holder(&locks, inode)),
                    "only one can while no agent runs: start the agent (proxymatic run), or end that one",
                ))
            }
            Err((_, error)) => Err(Error::kernel(format!("lock {path}"), &error)),
        }
    }

    /// Makes sure that no agent has the pins now.
    ///
    /// # Errors
    /// One has them.
    pub fn nobody_has_them(&self) -> Result<(), Error> {
        if self.bpffs.exists() { self.lock().map(drop) } else { Ok(()) }
    }

    /// Removes a hook's pins, which detaches it. What is not there is well removed.
    pub(super) fn unpin(&self, hook: &str) {
        for path in [self.link(hook), self.program(hook)] {
            if let Err(error) = remove(&path) {
                tracing::error!("cannot remove {}: {error}; the hook stays attached", path.display());
            }
        }
    }

    /// What this version pins but for hooks of interfaces, hooks first and of those connect first.
    fn ours(&self) -> impl Iterator<Item = PathBuf> {
        let hooks = HOOKS.iter().rev();
        let links = hooks.clone().map(|hook| self.link(hook));
        let programs = hooks.map(|hook| self.program(hook));
        links.chain(programs).chain(maps::ALL.iter().map(|map| self.map(map.name)))
    }

    /// Removes what a start that was killed left of itself: maps, of whatever size it had been asked for, which no hook
    /// uses. Where there is a link there are services in them.
    ///
    /// # Errors
    /// A pin cannot be removed.
    pub(super) fn remove_orphans(&self) -> Result<(), Error> {
        if HOOKS.iter().any(|hook| self.link(hook).exists()) || self.serves_interfaces() {
            return Ok(());
        }
        let left = unpin_all(self.ours())?.len();
        if left > 0 {
            tracing::info!("{left} pins of a start that was not completed, which nothing uses, were removed");
        }
        Ok(())
    }

    /// Whether anything is pinned for an interface.
    pub(super) fn serves_interfaces(&self) -> bool {
        !interfaces::pinned(self).is_empty() || PACKET_HOOKS.iter().any(|hook| self.program(hook).exists())
    }

    /// Removes exactly what we pin, hooks of interfaces first, then those of cgroups and of those connect first, and gives
    /// the paths and what filters there were; other versions' too, as far as it bears the names that it is pinned under.
    /// Nothing else is touched; folders stay where somebody else has put something into them.
    ///
    /// # Errors
    /// An agent is at it, or a pin or a filter cannot be removed.
    pub fn detach(&self) -> Result<Vec<String>, Error> {
        let others = self.other_versions();
        if !self.root.exists() && others.is_empty() {
            return Err(self.missing());
        }
        let _lock = self.lock()?;
        let mut removed = interfaces::remove_all(self)?;
        let mut pins = unpin_all(self.ours())?;
        self.remove_folders();
        for other in others {
            pins.extend(other.remove_all()?);
        }
        removed.extend(pins.iter().map(|path| path.display().to_string()));
        let _ = fs::remove_dir(&self.bpffs);
        Ok(removed)
    }

    pub(super) fn remove_folders(&self) {
        for folder in FOLDERS.into_iter().chain([""]) {
            // Fails where it is not empty: then it is not only ours.
            let _ = fs::remove_dir(self.root.join(folder));
        }
    }
}

/// Whether a hook leads back: to what was dialled, or out of the counts. Sockets need those for as long as they live.
pub(super) fn is_reverse_hook(hook: &str) -> bool {
    ["sock_release", "tcp_states", "getpeername", "getsockname", "recvmsg"].iter().any(|name| hook.starts_with(name))
}

/// Removes pins, and gives those that were there.
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

/// Removes a pin. False where there was none. A link's program does not run any more when this returns.
pub(super) fn remove(path: &Path) -> io::Result<bool> {
    if path.parent().is_some_and(|folder| folder.ends_with("links"))
        && let Ok(link) = bpf::open(path)
        && let Err(error) = bpf::detach_link(link.as_fd())
    {
        tracing::debug!("{}: not detached by force, but with its pin: {error}", path.display());
    }
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn make(folder: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
        let what = format!("cannot make {}: {error}", folder.display());
        Error::host(what, "mount the BPF file system writable, or name another folder with --bpffs")
    })
}

/// Who has a lock, by what /proc/locks says of an inode. The kernel gives no process id across pid namespaces.
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
    fn the_hooks_that_lead_back_come_before_those_that_lead_there() {
        let back: Vec<_> = HOOKS.iter().map(|hook| is_reverse_hook(hook)).collect();
        assert!(back.is_sorted_by(|a, b| a >= b), "{back:?}");
        assert_eq!(back.iter().filter(|it| **it).count(), 6);
    }

    #[test]
    fn the_holder_of_a_lock_is_found_by_inode() {
        let locks = "1: POSIX  ADVISORY  WRITE 811 00:1b:42 0 EOF\n2: FLOCK  ADVISORY  WRITE 4711 00:1b:42 0 EOF\n";
        assert_eq!(holder(locks, 42), "process 4711");
        assert!(holder(locks, 43).starts_with("a process that cannot be seen"));
        assert!(holder("2: FLOCK  ADVISORY  WRITE 0 00:1b:42 0 EOF\n", 42).starts_with("a process that cannot"));
    }
}
