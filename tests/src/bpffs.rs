//! A directory under /run with a bpf filesystem of its own, so that pins never mix with the machine's.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::cleanup::Guard;

const BPF: &str = "bpf";

/// A run directory with a bpf filesystem in it; dropping it unmounts, which releases every pin, and removes it.
#[derive(Debug)]
pub struct BpfFs {
    run: PathBuf,
    _guard: Guard,
}

impl BpfFs {
    /// Makes `/run/NAME` and mounts a bpf filesystem on `/run/NAME/bpf`.
    pub fn mount(name: &str) -> Result<Self> {
        let run = Path::new("/run").join(name);
        let doomed = run.clone();
        let make = || {
            fs::create_dir(&run).with_context(|| format!("make {}", run.display()))?;
            let target = run.join(BPF);
            fs::create_dir(&target).with_context(|| format!("make {}", target.display()))?;
            mount(Some(BPF), &target, Some(BPF), MsFlags::empty(), Some("mode=0700"))
                .with_context(|| format!("mount a bpf filesystem on {}", target.display()))
        };
        let (guard, ()) = Guard::new(make, move || remove_run_dir(&doomed))?;
        Ok(Self { run, _guard: guard })
    }

    /// The bpf filesystem.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.run.join(BPF)
    }

    /// The ordinary directory around it, for sockets and logs.
    #[must_use]
    pub fn run_dir(&self) -> &Path {
        &self.run
    }
}

/// Unmounts the bpf filesystem in a run directory and removes the directory. One that is not there is fine.
pub(crate) fn remove_run_dir(run: &Path) -> Result<()> {
    match umount2(&run.join(BPF), MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(error) => return Err(error).with_context(|| format!("unmount {}/{BPF}", run.display())),
    }
    match fs::remove_dir_all(run) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", run.display()))
        }
        _ => Ok(()),
    }
}
