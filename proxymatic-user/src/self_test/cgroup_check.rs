//! Checks whether this process is in the served cgroup; hooks do not run for sockets outside of it.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

/// Returns whether this process is in the cgroup of this id or below it; `None` if this process cannot find out.
pub fn is_inside(cgroup: u64, root: &Path) -> Option<bool> {
    let ours = fs::read_to_string("/proc/self/cgroup").ok()?;
    let ours = root.join(cgroup2_path(&ours)?.trim_start_matches('/'));
    let ids = ours.ancestors().take_while(|folder| folder.starts_with(root));
    let ids: Option<Vec<_>> = ids.map(|folder| fs::metadata(folder).ok().map(|data| data.ino())).collect();
    Some(ids?.contains(&cgroup))
}

/// Returns the path in the cgroup2 tree from the text of `/proc/<pid>/cgroup`.
fn cgroup2_path(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::")).filter(|path| !path.contains(".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_path_is_found_among_those_of_version_1() {
        assert_eq!(
            cgroup2_path("12:cpu:/a\n1:name=systemd:/b\n0::/system.slice/x.service\n"),
            Some("/system.slice/x.service")
        );
        assert_eq!(cgroup2_path("0::/\n"), Some("/"));
        assert_eq!(cgroup2_path("0::/../other\n"), None, "outside of the visible tree");
        assert_eq!(cgroup2_path("12:cpu:/a\n"), None);
    }
}
