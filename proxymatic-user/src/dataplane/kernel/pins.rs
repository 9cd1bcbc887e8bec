//! Where everything is pinned, and whose it is.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use proxymatic_common::{ABI_VERSION, maps};

use super::HOOKS;
use crate::dataplane::Error;

/// The folders of the pins: `<bpffs>/v<ABI>/{links,programs,maps}`.
#[derive(Clone, Debug)]
pub struct Pins {
    bpffs: PathBuf,
    root: PathBuf,
}

/// Says that the pins are ours, for as long as it lives.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not read")] Flock<File>);

impl Pins {
    /// The pins under a folder, whether there are any or not.
    pub fn at(bpffs: &Path) -> Self {
        Self { bpffs: bpffs.to_owned(), root: bpffs.join(format!("v{ABI_VERSION}")) }
    }

    /// Makes the folders where they are missing, for root only.
    ///
    /// # Errors
    /// They cannot be made.
    pub(super) fn make(bpffs: &Path) -> Result<Self, Error> {
        let pins = Self::at(bpffs);
        for folder in ["links", "programs", "maps"] {
            let path = pins.root.join(folder);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(|error| Error::kernel(format!("make {}", path.display()), &error))?;
        }
        Ok(pins)
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

    pub(super) fn missing(&self) -> Error {
        Error::NoPins { path: self.root.display().to_string() }
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
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::error!("cannot remove {}: {error}; the hook stays attached", path.display());
            }
        }
    }

    /// Removes exactly what we pin, hooks first and of those connect first, and gives the paths. Nothing else is
    /// touched; folders stay where somebody else has put something into them.
    ///
    /// # Errors
    /// An agent is at it, or a pin cannot be removed.
    pub fn detach(&self) -> Result<Vec<PathBuf>, Error> {
        if !self.root.exists() {
            return Err(self.missing());
        }
        let _lock = self.lock()?;
        let hooks = HOOKS.iter().rev();
        let links = hooks.clone().map(|hook| self.link(hook));
        let programs = hooks.map(|hook| self.program(hook));
        let maps = maps::ALL.iter().map(|map| self.map(map.name));
        let mut removed = Vec::new();
        for path in links.chain(programs).chain(maps) {
            match fs::remove_file(&path) {
                Ok(()) => removed.push(path),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::kernel(format!("remove {}", path.display()), &error)),
            }
        }
        for folder in ["links", "programs", "maps", ""] {
            // Fails where it is not empty: then it is not only ours.
            let _ = fs::remove_dir(self.root.join(folder));
        }
        let _ = fs::remove_dir(&self.bpffs);
        Ok(removed)
    }
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
    fn the_holder_of_a_lock_is_found_by_inode() {
        let locks = "1: POSIX  ADVISORY  WRITE 811 00:1b:42 0 EOF\n2: FLOCK  ADVISORY  WRITE 4711 00:1b:42 0 EOF\n";
        assert_eq!(holder(locks, 42), "process 4711");
        assert!(holder(locks, 43).starts_with("a process that cannot be seen"));
        assert!(holder("2: FLOCK  ADVISORY  WRITE 0 00:1b:42 0 EOF\n", 42).starts_with("a process that cannot"));
    }
}
