//! Removes what killed runs left: cgroups, network namespaces and bpf filesystems.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::cleanup::{PREFIX, RUN, warn};
use crate::{bpffs, cgroup, net};

/// Removes the remains of killed runs, and returns their names.
pub fn sweep() -> Vec<String> {
    // Processes first, then what they used.
    let cgroups = cgroup::root().map(|root| sweep_room(root, cgroup::remove)).unwrap_or_default();
    [cgroups, sweep_room(Path::new(net::RUN), net::remove), sweep_room(Path::new(RUN), bpffs::remove_run_dir)].concat()
}

fn sweep_room(room: &Path, remove: fn(&Path) -> Result<()>) -> Vec<String> {
    let entries = fs::read_dir(room).into_iter().flatten().flatten();
    let leftovers = entries.filter(|entry| is_leftover(&entry.file_name().to_string_lossy())).map(|entry| entry.path());
    leftovers
        .map(|path| {
            warn(remove(&path));
            path.display().to_string()
        })
        .collect()
}

fn is_leftover(name: &str) -> bool {
    let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()).and_then(|pid| pid.parse::<u32>().ok());
    pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}
