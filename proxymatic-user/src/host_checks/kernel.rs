//! What this kernel is known to do wrong with sockets that are taken elsewhere, where somebody has use for it. Pure.
//!
//! By version, for once: neither can be tried out without doing harm.

use std::collections::BTreeSet;

/// The version of a kernel, as its stable releases count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u32, u32, u32);

/// From here on a socket can belong to a class of net_cls or net_prio and to a cgroup at the same time: commit
/// 8520e224f547.
const CLASSIDS: Version = Version(5, 14, 0);

/// From here on the kernel's own clients keep the address that they were told: commits 0bdf399342c5 ("net: Avoid address
/// overwrite in kernel_connect"), 26297b4ce1ce (who did not connect by that) and 86a7e0b69bd5 (datagrams).
const CLIENTS: Version = Version(6, 6, 0);
/// The first stable releases with all three: the first of them had come a release or two before. By the announcements of
/// these releases (5.10.198-rc1 and so on, October 2023).
const CLIENTS_STABLE: [Version; 4] = [Version(5, 10, 198), Version(5, 15, 135), Version(6, 1, 57), Version(6, 5, 7)];
/// SMB has a way of its own to connect, mended by commit cedc019b9f26, which 5.15.135 has not.
const SMB_STABLE: [Version; 1] = [Version(6, 5, 7)];

/// Clients in the kernel that connect again by themselves.
const CLIENT_KINDS: [&str; 7] = ["nfs", "nfs4", "ceph", "cifs", "smb3", "glusterfs", "afs"];
const SMB: [&str; 2] = ["cifs", "smb3"];

impl Version {
    /// From `uname -r`, and `/proc/version`: distributions that count by themselves say there which stable release theirs
    /// was made from.
    pub(super) fn of(release: &str, banner: &str) -> Self {
        let own = Self::read(release).unwrap_or(Self(0, 0, 0));
        let words = banner.split(|c: char| !c.is_ascii_alphanumeric() && !".-+~".contains(c));
        let same = words.filter_map(Self::read).filter(|it| (it.0, it.1) == (own.0, own.1));
        same.fold(own, Self::max)
    }

    fn read(word: &str) -> Option<Self> {
        let mut numbers = word.trim().split(|c: char| !c.is_ascii_digit()).map(str::parse);
        let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(Self(major, minor, numbers.next().and_then(Result::ok).unwrap_or(0)))
    }
}

/// net_cls or net_prio in use, by `/proc/cgroups`: a socket that has a class falls out of the cgroup tree.
pub(super) fn classids(version: Version, cgroups: &str) -> Option<String> {
    let used = |line: &str| {
        let mut fields = line.split_whitespace();
        let name = fields.next().filter(|name| ["net_cls", "net_prio"].contains(name))?;
        let (hierarchy, groups): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        // Its root alone gives no class to anybody.
        (hierarchy != 0 && groups > 1).then(|| name.to_owned())
    };
    let used: Vec<_> = cgroups.lines().filter_map(used).collect();
    (version < CLASSIDS && !used.is_empty()).then(|| {
        format!(
            "{} is in use: before Linux 5.14 programs with a class of it are passed by, their connections lead to no \
             service; do without (Mesos: no isolator cgroups/net_cls), or take a newer kernel",
            used.join(" and ")
        )
    })
}

/// Clients in the kernel, by `/proc/mounts`.
pub(super) fn clients(version: Version, mounts: &str) -> Option<String> {
    let mended = |kind: &str| {
        let stable = if SMB.contains(&kind) { &SMB_STABLE[..] } else { &CLIENTS_STABLE[..] };
        version >= CLIENTS || stable.iter().any(|it| (it.0, it.1) == (version.0, version.1) && version >= *it)
    };
    let kinds = mounts.lines().filter_map(|line| line.split(' ').nth(2));
    let kinds: BTreeSet<_> = kinds.filter(|kind| CLIENT_KINDS.contains(kind) && !mended(kind)).collect();
    (!kinds.is_empty()).then(|| {
        let kinds = kinds.into_iter().collect::<Vec<_>>().join(", ");
        format!(
            "file systems of other hosts are mounted ({kinds}): this kernel's own clients remember the replica and not the \
             service, and go on dialling it when it is gone; mount them by the replica's address, or take Linux 6.6 (or a \
             stable release with \"net: Avoid address overwrite in kernel_connect\")"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Version = Version(5, 10, 100);

    #[test]
    fn a_version_is_that_of_the_stable_release_wherever_it_is_said() {
        let debian = "Linux version 5.10.0-46-amd64 (debian-kernel@lists.debian.org) (gcc-10 (Debian 10.2.1-6) 10.2.1, GNU \
                      ld (GNU Binutils for Debian) 2.35.2) #1 SMP Debian 5.10.262-1 (2026-11-01)";
        assert_eq!(Version::of("5.10.0-46-amd64\n", debian), Version(5, 10, 262));
        assert_eq!(Version::of("6.18.44-fc", ""), Version(6, 18, 44));
        assert_eq!(Version::of("6.6", "Linux version 6.6 (gcc 6.7.1)"), Version(6, 6, 0));
        assert_eq!(Version::of("", ""), Version(0, 0, 0));
    }

    #[test]
    fn classes_matter_before_5_14_and_only_where_there_are_some() {
        let cgroups =
            |net_cls: &str| format!("#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t5\t1\n{net_cls}\n");
        let used = classids(OLD, &cgroups("net_cls\t5\t12\t1")).unwrap();
        assert!(used.starts_with("net_cls is in use: before Linux 5.14"), "{used}");
        for unused in ["net_cls\t0\t1\t1", "net_cls\t5\t1\t1", "net_prio\t0\t1\t0", ""] {
            assert_eq!(classids(OLD, &cgroups(unused)), None, "{unused}");
        }
        assert_eq!(classids(CLASSIDS, &cgroups("net_cls\t5\t12\t1")), None);
    }

    #[test]
    fn clients_in_the_kernel_matter_before_6_6_and_the_stable_releases_with_the_fix() {
        let mounts = "proc /proc proc rw 0 0\nfiler:/a /a nfs4 rw,vers=4.2 0 0\nfiler:/b /b nfs4 rw 0 0\n";
        let said = clients(OLD, mounts).unwrap();
        assert!(said.starts_with("file systems of other hosts are mounted (nfs4): "), "{said}");
        assert!(clients(Version(6, 4, 90), mounts).is_some());
        for fixed in [Version(5, 10, 198), Version(5, 15, 140), Version(6, 1, 57), Version(6, 6, 0), Version(7, 0, 0)] {
            assert_eq!(clients(fixed, mounts), None, "{fixed:?}");
        }
        let smb = format!("{mounts}//filer/c /c cifs rw 0 0\n");
        assert!(
            clients(Version(5, 15, 140), &smb).unwrap().starts_with("file systems of other hosts are mounted (cifs): ")
        );
        assert_eq!(clients(Version(6, 5, 7), &smb), None);
        assert_eq!(clients(OLD, "proc /proc proc rw 0 0\n/dev/sda /nfs ext4 rw 0 0\n"), None);
    }
}
