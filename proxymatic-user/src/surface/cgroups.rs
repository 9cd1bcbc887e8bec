//! The paths of cgroups, by id.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::dataplane::kernel::cgroup_root;

/// The existing cgroups by id. They are read once, at the first call.
#[derive(Debug, Default)]
pub(super) struct Cgroups(Option<BTreeMap<u64, String>>);

impl Cgroups {
    /// Returns the path of a cgroup from the root of the tree, as in `/proc/<pid>/cgroup`; `None` if the cgroup no
    /// longer exists.
    pub(super) fn path(&mut self, id: u64) -> Option<&str> {
        self.0
            .get_or_insert_with(|| cgroup_root().map(|root| read(&root)).unwrap_or_default())
            .get(&id)
            .map(String::as_str)
    }
}

fn read(root: &Path) -> BTreeMap<u64, String> {
    let mut found = BTreeMap::new();
    let mut folders: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        if let Ok(data) = fs::metadata(&folder) {
            let below = folder.strip_prefix(root).unwrap_or(&folder);
            found.insert(data.ino(), Path::new("/").join(below).display().to_string());
        }
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        folders.extend(entries.filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir())).map(|it| it.path()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_path_is_found_by_inode_number() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("mesos/a")).unwrap();
        let found = read(root.path());
        let id = fs::metadata(root.path().join("mesos/a")).unwrap().ino();
        assert_eq!(found[&id], "/mesos/a");
        assert_eq!(found[&fs::metadata(root.path()).unwrap().ino()], "/");
        assert_eq!(found.len(), 3);
    }
}
