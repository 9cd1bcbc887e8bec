//! Child cgroups of the cgroup2 tree, and starting commands inside one. The root cgroup itself is never used.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cleanup::Guard;
use crate::eventually::eventually_ok;

/// A child cgroup; dropping it ends whatever still runs inside and removes it.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    _guard: Guard,
}

impl Cgroup {
    /// Makes a child of the root of the cgroup2 tree.
    pub fn create(name: &str) -> Result<Self> {
        Self::make(root()?, name)
    }

    /// Makes a child of this cgroup. Drop it before its parent.
    pub fn child(&self, name: &str) -> Result<Self> {
        Self::make(&self.path, name)
    }

    /// The directory, as `--cgroup` takes it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The pids inside, not counting child cgroups.
    pub fn processes(&self) -> Result<Vec<i32>> {
        pids(&self.path)
    }

    fn make(parent: &Path, name: &str) -> Result<Self> {
        ensure!(!name.is_empty() && !name.contains(['/', '.']), "a cgroup needs a plain name, not {name:?}");
        let path = parent.join(name);
        let doomed = path.clone();
        let (guard, ()) = Guard::new(
            || fs::create_dir(&path).with_context(|| format!("make cgroup {}", path.display())),
            move || remove(&doomed),
        )?;
        Ok(Self { path, _guard: guard })
    }
}

/// Returns the mount point of the cgroup2 tree: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` in the hybrid layout.
pub fn root() -> Result<&'static Path> {
    static ROOT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = ROOT.get_or_init(|| cgroup2_mount(&fs::read_to_string("/proc/self/mountinfo").ok()?));
    found.as_deref().context("no cgroup2 mount in /proc/self/mountinfo")
}

/// Ends all processes in a child cgroup and below it, then removes it. A missing cgroup is fine.
pub(crate) fn remove(path: &Path) -> Result<()> {
    ensure!(root()? != path, "refusing to remove the root cgroup");
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    let what = format!("remove cgroup {}", path.display());
    eventually_ok(&what, Duration::from_secs(5), || {
        for pid in pids(path)? {
            // A process that has ended since is fine.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        match fs::remove_dir(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => bail!(error),
            _ => Ok(()),
        }
    })
}

fn pids(path: &Path) -> Result<Vec<i32>> {
    let text = match fs::read_to_string(path.join("cgroup.procs")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("read {}/cgroup.procs", path.display()))?,
    };
    // A pid of 0 is a process of another pid namespace, which must not be ended from here.
    Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect())
}

fn cgroup2_mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        (filesystem.split(' ').next()? == "cgroup2").then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_mount_is_found_in_both_layouts() {
        let hybrid = "32 31 0:30 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let unified = "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(cgroup2_mount(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(cgroup2_mount(unified), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(cgroup2_mount("1 2 0:3 / /proc rw - proc proc rw\n"), None);
    }
}
