//! Other versions of the layouts, pinned beside this one: who serves, and what is left when that one has been replaced.
//!
//! A version's maps are read by that version alone. Two promises hold across versions, so that any can put any other
//! away: hooks that lead back have the names that [`leads_back`] knows, and an entry of `BACKEND_STATS` begins with how many
//! connections were opened and closed.

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
    interfaces::PACKET_HOOKS,
    mmap_array::MmapArray,
    pins::{FOLDERS, is_reverse_hook, unpin_all},
};
use crate::dataplane::Error;

/// How long sockets of a version that was replaced are led back, at most.
const BOUND: Duration = Duration::from_secs(24 * 3600);

impl Pins {
    /// The folders of other versions, the newest first.
    pub(super) fn other_versions(&self) -> Vec<Self> {
        let entries = fs::read_dir(self.bpffs()).into_iter().flatten().flatten();
        let mut versions: Vec<_> = entries.filter_map(|entry| version(&entry.file_name())).collect();
        versions.sort_unstable_by(|a, b| b.cmp(a));
        versions.retain(|version| *version != self.version());
        versions.into_iter().map(|version| Self::of(self.bpffs(), version)).collect()
    }

    /// Whether anything of another version is pinned.
    pub fn has_other_version(&self) -> bool {
        !self.other_versions().is_empty()
    }

    /// Whether connections are sent to backends by what is pinned here: one of its hooks that lead there is attached.
    pub fn serves(&self) -> bool {
        let attached = |path: PathBuf| bpf::open(&path).and_then(|link| bpf::attached(link.as_fd()));
        let links = self.pinned("links").into_iter().filter(|path| !is_reverse_hook(name(path)));
        links.filter_map(|path| attached(path).ok()).any(|link| link.cgroup != 0)
    }

    /// The other version that serves, if any does.
    pub fn served_by(&self) -> Option<u32> {
        self.other_versions().iter().find(|other| other.serves()).map(Self::version)
    }

    /// Removes the hooks that lead there: this version has been replaced. Its sockets are led back for as long as they
    /// live. Hooks of interfaces stay until they are taken over.
    ///
    /// # Errors
    /// A pin cannot be removed.
    pub(super) fn detach_forward_hooks(&self) -> Result<(), Error> {
        let hooks = [self.pinned("links"), self.pinned("programs")].concat();
        let leads_there = |path: &PathBuf| !is_reverse_hook(name(path)) && !of_interface(name(path)) && is_ours(path);
        unpin_all(hooks.into_iter().filter(leads_there)).map(drop)
    }

    /// Whether nothing needs what is left of this version: no connection of its is open, or it was replaced long ago.
    pub(super) fn is_idle(&self) -> bool {
        !self.serves() && (self.open_connections().is_ok_and(|open| open == 0) || self.replaced_for() > BOUND)
    }

    /// How many connections that this version made are open, as its own hooks count.
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

    /// Since when none of its hooks leads there: a folder's time is that of its last change.
    fn replaced_for(&self) -> Duration {
        let changed = fs::metadata(self.root.join("links")).and_then(|data| data.modified());
        changed.ok().and_then(|at| at.elapsed().ok()).unwrap_or_default()
    }

    /// Removes all that is left of this version, and gives the paths.
    ///
    /// # Errors
    /// A pin cannot be removed.
    pub(super) fn remove_all(&self) -> Result<Vec<PathBuf>, Error> {
        let mut pinned: Vec<_> = FOLDERS.into_iter().map(|folder| self.pinned(folder)).collect();
        pinned[0].sort_by_key(|path| is_reverse_hook(name(path)));
        let removed = unpin_all(pinned.concat().into_iter().filter(|path| is_ours(path)))?;
        self.remove_folders();
        Ok(removed)
    }

    fn pinned(&self, folder: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }
}

/// The version that a folder is of.
fn version(folder: &OsStr) -> Option<u32> {
    let version = folder.to_str()?.strip_prefix('v')?.parse().ok()?;
    // Not another way to write a number, such as v02 or v+2: those are not ours.
    (folder.to_str() == Some(&format!("v{version}"))).then_some(version)
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(OsStr::to_str).unwrap_or_default()
}

/// Whether it is a hook of an interface, or the link of one.
fn of_interface(name: &str) -> bool {
    PACKET_HOOKS.contains(&name.split('@').next().unwrap_or_default())
}

/// Whether what is pinned is what a version of ours pins: it bears the name that it is pinned under, which is all that is
/// known of what another version has.
fn is_ours(path: &Path) -> bool {
    let named = |found: Option<&str>| {
        // Links of interfaces say which that is. The kernel keeps 15 bytes of names (BPF_OBJ_NAME_LEN).
        let name = name(path).split('@').next().unwrap_or_default();
        found.is_some_and(|found| !found.is_empty() && Some(found) == name.get(..name.len().min(15)))
    };
    match path.parent().map(name) {
        Some("maps") => MapInfo::from_pin(path).is_ok_and(|map| named(map.name_as_str())),
        Some("programs") => ProgramInfo::from_pin(path).is_ok_and(|program| named(program.name_as_str())),
        Some("links") => {
            let runs = |link: OwnedFd| match bpf::attached(link.as_fd()) {
                Ok(link) => Ok(link.program),
                Err(_) => bpf::on_interface(link.as_fd()).map(|link| link.program),
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
    fn only_the_folders_of_versions_are_taken_for_such() {
        for (folder, is) in
            [("v2", Some(2)), ("v10", Some(10)), ("v02", None), ("v", None), ("v+2", None), ("w2", None)]
        {
            assert_eq!(version(OsStr::new(folder)), is, "{folder}");
        }
    }

    #[test]
    fn the_folders_of_other_versions_are_found_newest_first() {
        let bpffs = tempfile::tempdir().unwrap();
        let ours = Pins::at(bpffs.path());
        for version in [1, 9, 10, ours.version()] {
            fs::create_dir(bpffs.path().join(format!("v{version}"))).unwrap();
        }
        fs::create_dir(bpffs.path().join("somebody")).unwrap();
        assert_eq!(ours.other_versions().iter().map(Pins::version).collect::<Vec<_>>(), [10, 9, 1]);
    }
}
