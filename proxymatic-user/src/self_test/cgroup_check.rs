//! Whether this process is in the cgroup that is served: elsewhere its sockets are none of the hooks' business.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

/// Whether this process is in the cgroup of that id or below it; `None` where that cannot be told from here.
pub fn is_inside(cgroup: u64, root: &Path) -> Option<bool> {
    let ours = fs::read_to_string("/proc/self/cgroup").ok()?;
    let ours = root.join(own(&ours)?.trim_start_matches('/'));
    let ids = ours.ancestors().take_while(|folder| folder.starts_with(root));
    let ids: Option<Vec<_>> = ids.map(|folder| fs::metadata(folder).ok().map(|data| data.ino())).collect();
    Some(ids?.contains(&cgroup))
}

/// The path of a process's cgroup in the cgroup2 tree, from its `/proc/<pid>/cgroup`.
fn own(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::")).filter(|path| !path.contains(".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_in_the_cgroup2_tree_is_found_among_those_of_old_ones() {
        assert_eq!(own("12:cpu:/a\n1:name=systemd:/b\n0::/system.slice/x.service\n"), Some("/system.slice/x.service"));
        assert_eq!(own("0::/\n"), Some("/"));
        assert_eq!(own("0::/../other\n"), None, "outside of what can be seen");
        assert_eq!(own("12:cpu:/a\n"), None);
    }
}
