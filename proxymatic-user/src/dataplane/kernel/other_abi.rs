//! Pins of other map ABI versions: which version serves, and when the pins of a replaced one can be removed.
//!
//! Only a version itself reads its maps. Two rules hold across versions, so that each can remove any other: reverse
//! hooks have names that [`is_reverse_hook`] knows, and an entry of `BACKEND_STATS` begins with the counts of opened
//! and closed connections.

use std::{
    ffi::OsStr,
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use aya::{
    maps::{MapData, MapError, MapInfo},
    programs::{ProgramInfo, loaded_programs},
};
use proxymatic_common::{
    Cell64,
    maps::{BackendStatsMap, MapDef as _},
};

use super::{
    Pins, bpf,
    hook_names::{PACKET_HOOKS, is_reverse_hook},
    mmap_array::MmapArray,
    pins::{FOLDERS, unpin_all},
};
use crate::dataplane::Error;

/// How long a replaced version keeps its reverse hooks at most.
const MAX_REPLACED_AGE: Duration = Duration::from_secs(24 * 3600);

impl Pins {
    /// The pins of other map ABI versions, newest first.
    pub(super) fn other_versions(&self) -> Vec<Self> {
        let entries = fs::read_dir(self.bpffs()).into_iter().flatten().flatten();
        let mut versions: Vec<_> = entries.filter_map(|entry| parse_version(&entry.file_name())).collect();
        versions.sort_unstable_by(|a, b| b.cmp(a));
        versions.retain(|version| *version != self.version());
        versions.into_iter().map(|version| Self::of(self.bpffs(), version)).collect()
    }

    /// Returns true if another map ABI version has a folder of pins.
    pub fn has_other_version(&self) -> bool {
        !self.other_versions().is_empty()
    }

    /// Returns true if these pins serve: a forward hook is attached.
    pub fn serves(&self) -> bool {
        let attached = |path: PathBuf| bpf::open(&path).and_then(|link| bpf::cgroup_link_info(link.as_fd()));
        let links = self.pinned("links").into_iter().filter(|path| !is_reverse_hook(file_name(path)));
        links.filter_map(|path| attached(path).ok()).any(|link| link.cgroup != 0)
    }

    /// The other map ABI version that serves, if any.
    pub fn served_by(&self) -> Option<u32> {
        self.other_versions().iter().find(|other| other.serves()).map(Self::version)
    }

    /// Removes the forward hooks of this replaced version. The reverse hooks stay for its open sockets, and hooks of
    /// interfaces stay until they are taken over.
    ///
    /// # Errors
    /// Fails if a pin cannot be removed.
    pub(super) fn detach_forward_hooks(&self) -> Result<(), Error> {
        let hooks = [self.pinned("links"), self.pinned("programs")].concat();
        let is_forward =
            |path: &PathBuf| !is_reverse_hook(file_name(path)) && !is_packet_hook(file_name(path)) && is_ours(path);
        unpin_all(hooks.into_iter().filter(is_forward)).map(drop)
    }

    /// Returns true if this version does not serve, and has no open connection or was replaced long ago.
    pub(super) fn is_idle(&self) -> bool {
        !self.serves()
            && (self.open_connections().is_ok_and(|open| open == 0) || self.replaced_for() > MAX_REPLACED_AGE)
    }

    /// Returns how many connections of this version are open, according to its own hooks.
    pub(super) fn open_connections(&self) -> Result<u64, Error> {
        let path = self.map(BackendStatsMap::NAME);
        if !path.exists() {
            return Ok(0);
        }
        let failed = |error: MapError| Error::kernel(format!("read {}", path.display()), &error);
        let map = MapData::from_pin(&path).map_err(failed)?;
        let info = map.info().map_err(failed)?;
        let words = info.value_size().div_ceil(8);
        let cells = MmapArray::<Cell64>::new(BackendStatsMap::NAME, &map, info.max_entries().saturating_mul(words))?;
        let count = |index| cells.cell(index).map_or(0, Cell64::get);
        let entries = (0..info.max_entries()).map(|entry| entry * words);
        Ok(entries.map(|at| count(at).saturating_sub(count(at + 1))).sum())
    }

    /// Returns the time since the last forward hook was detached, from the folder's modification time.
    fn replaced_for(&self) -> Duration {
        let changed = fs::metadata(self.root.join("links")).and_then(|data| data.modified());
        changed.ok().and_then(|at| at.elapsed().ok()).unwrap_or_default()
    }

    /// Removes all pins of this version and returns their paths.
    ///
    /// # Errors
    /// Fails if a pin cannot be removed.
    pub(super) fn remove_all(&self) -> Result<Vec<PathBuf>, Error> {
        let mut pinned: Vec<_> = FOLDERS.into_iter().map(|folder| self.pinned(folder)).collect();
        pinned[0].sort_by_key(|path| is_reverse_hook(file_name(path)));
        let removed = unpin_all(pinned.concat().into_iter().filter(|path| is_ours(path)))?;
        self.remove_folders();
        Ok(removed)
    }

    fn pinned(&self, folder: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }
}

/// Returns the map ABI version of a folder name.
fn parse_version(folder: &OsStr) -> Option<u32> {
    let version = folder.to_str()?.strip_prefix('v')?.parse().ok()?;
    // Other notations such as v02 or v+2 are not ours.
    (folder.to_str() == Some(&format!("v{version}"))).then_some(version)
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(OsStr::to_str).unwrap_or_default()
}

/// Returns true for the name of a hook of an interface, or of its link.
fn is_packet_hook(name: &str) -> bool {
    PACKET_HOOKS.contains(&name.split('@').next().unwrap_or_default())
}

/// Returns true if a pin is that of a proxymatic: the object has the name of its pin. Nothing else is known about
/// pins of other map ABI versions.
fn is_ours(path: &Path) -> bool {
    let named = |found: Option<&str>| {
        // Names of links end with the interface. The kernel cuts object names to 15 bytes (BPF_OBJ_NAME_LEN).
        let name = file_name(path).split('@').next().unwrap_or_default();
        found.is_some_and(|found| !found.is_empty() && Some(found) == name.get(..name.len().min(15)))
    };
    match path.parent().map(file_name) {
        Some("maps") => MapInfo::from_pin(path).is_ok_and(|map| named(map.name_as_str())),
        Some("programs") => ProgramInfo::from_pin(path).is_ok_and(|program| named(program.name_as_str())),
        Some("links") => {
            let runs = |link: OwnedFd| match bpf::cgroup_link_info(link.as_fd()) {
                Ok(link) => Ok(link.program),
                Err(_) => bpf::interface_link_info(link.as_fd()).map(|link| link.program),
            };
            let program = bpf::open(path).and_then(runs).and_then(program);
            program.is_ok_and(|program| named(program.name_as_str()))
        }
        _ => false,
    }
}

fn program(id: u32) -> io::Result<ProgramInfo> {
    let mut programs = loaded_programs().filter_map(Result::ok);
    programs.find(|program| program.id() == id).ok_or_else(|| io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_version_folders_are_parsed() {
        for (folder, is) in
            [("v2", Some(2)), ("v10", Some(10)), ("v02", None), ("v", None), ("v+2", None), ("w2", None)]
        {
            assert_eq!(parse_version(OsStr::new(folder)), is, "{folder}");
        }
    }

    #[test]
    fn other_versions_are_listed_newest_first() {
        let bpffs = tempfile::tempdir().unwrap();
        let ours = Pins::at(bpffs.path());
        for version in [1, 9, 10, ours.version()] {
            fs::create_dir(bpffs.path().join(format!("v{version}"))).unwrap();
        }
        fs::create_dir(bpffs.path().join("somebody")).unwrap();
        assert_eq!(ours.other_versions().iter().map(Pins::version).collect::<Vec<_>>(), [10, 9, 1]);
    }
}
