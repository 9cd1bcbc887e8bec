//! Warnings about known faults of this kernel with translated sockets, if the host uses what they affect. Pure.
//!
//! These go by version, because trying them out would do harm.

use std::collections::BTreeSet;

/// The version of a stable release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u32, u32, u32);

/// The first version in which a socket can have both a net_cls or net_prio class and a cgroup: commit 8520e224f547.
const CLASSES_FIXED: Version = Version(5, 14, 0);

/// The first version in which clients inside the kernel keep the original address: commits 0bdf399342c5 ("net: Avoid
/// address overwrite in kernel_connect"), 26297b4ce1ce (clients that bypassed that function) and 86a7e0b69bd5
/// (datagrams).
const CLIENTS_FIXED: Version = Version(6, 6, 0);
/// The first stable releases with all three commits, according to their announcements (5.10.198-rc1 and so on,
/// October 2023). The first commit alone came a release or two earlier.
const CLIENTS_FIXED_STABLE: [Version; 4] =
    [Version(5, 10, 198), Version(5, 15, 135), Version(6, 1, 57), Version(6, 5, 7)];
/// SMB connects in a way of its own, fixed by commit cedc019b9f26, which 5.15.135 lacks.
const SMB_FIXED_STABLE: [Version; 1] = [Version(6, 5, 7)];

/// File systems whose clients inside the kernel reconnect on their own.
const CLIENT_KINDS: [&str; 7] = ["nfs", "nfs4", "ceph", "cifs", "smb3", "glusterfs", "afs"];
const SMB: [&str; 2] = ["cifs", "smb3"];

impl Version {
    /// Reads the version from `uname -r` and `/proc/version`. Distributions with version numbers of their own name
    /// the stable release there.
    pub(super) fn of(release: &str, banner: &str) -> Self {
        let own = Self::parse(release).unwrap_or(Self(0, 0, 0));
        let words = banner.split(|c: char| !c.is_ascii_alphanumeric() && !".-+~".contains(c));
        let same = words.filter_map(Self::parse).filter(|it| (it.0, it.1) == (own.0, own.1));
        same.fold(own, Self::max)
    }

    fn parse(word: &str) -> Option<Self> {
        let mut numbers = word.trim().split(|c: char| !c.is_ascii_digit()).map(str::parse);
        let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(Self(major, minor, numbers.next().and_then(Result::ok).unwrap_or(0)))
    }
}

/// Warns of net_cls or net_prio in `/proc/cgroups`: a socket with a class leaves the cgroup tree.
pub(super) fn class_warning(version: Version, cgroups: &str) -> Option<String> {
    let used = |line: &str| {
        let mut fields = line.split_whitespace();
        let name = fields.next().filter(|name| ["net_cls", "net_prio"].contains(name))?;
        let (hierarchy, groups): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        // The root alone assigns no class.
        (hierarchy != 0 && groups > 1).then(|| name.to_owned())
    };
    let used: Vec<_> = cgroups.lines().filter_map(used).collect();
    (version < CLASSES_FIXED && !used.is_empty()).then(|| {
        format!(
            "{} is in use: before Linux 5.14 hooks miss programs that have such a class, so their connections reach no \
             service; disable it (Mesos: no isolator cgroups/net_cls), or upgrade the kernel",
            used.join(" and ")
        )
    })
}

/// Warns of file systems in `/proc/mounts` whose clients are inside the kernel.
pub(super) fn client_warning(version: Version, mounts: &str) -> Option<String> {
    let is_fixed = |kind: &str| {
        let stable = if SMB.contains(&kind) { &SMB_FIXED_STABLE[..] } else { &CLIENTS_FIXED_STABLE[..] };
        version >= CLIENTS_FIXED || stable.iter().any(|it| (it.0, it.1) == (version.0, version.1) && version >= *it)
    };
    let kinds = mounts.lines().filter_map(|line| line.split(' ').nth(2));
    let kinds: BTreeSet<_> = kinds.filter(|kind| CLIENT_KINDS.contains(kind) && !is_fixed(kind)).collect();
    (!kinds.is_empty()).then(|| {
        let kinds = kinds.into_iter().collect::<Vec<_>>().join(", ");
        format!(
            "file systems of other hosts are mounted ({kinds}): clients inside this kernel remember the replica and not the \
             service, and reconnect to it when it is gone; mount them by the replica's address, or upgrade to Linux 6.6 (or a \
             stable release with \"net: Avoid address overwrite in kernel_connect\")"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Version = Version(5, 10, 100);

    #[test]
    fn version_is_that_of_the_stable_release() {
        let debian = "Linux version 5.10.0-46-amd64 (debian-kernel@lists.debian.org) (gcc-10 (Debian 10.2.1-6) 10.2.1, GNU \
                      ld (GNU Binutils for Debian) 2.35.2) #1 SMP Debian 5.10.262-1 (2026-11-01)";
        assert_eq!(Version::of("5.10.0-46-amd64\n", debian), Version(5, 10, 262));
        assert_eq!(Version::of("6.18.44-fc", ""), Version(6, 18, 44));
        assert_eq!(Version::of("6.6", "Linux version 6.6 (gcc 6.7.1)"), Version(6, 6, 0));
        assert_eq!(Version::of("", ""), Version(0, 0, 0));
    }

    #[test]
    fn classes_matter_before_5_14_if_there_are_any() {
        let cgroups =
            |net_cls: &str| format!("#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t5\t1\n{net_cls}\n");
        let used = class_warning(OLD, &cgroups("net_cls\t5\t12\t1")).unwrap();
        assert!(used.starts_with("net_cls is in use: before Linux 5.14"), "{used}");
        for unused in ["net_cls\t0\t1\t1", "net_cls\t5\t1\t1", "net_prio\t0\t1\t0", ""] {
            assert_eq!(class_warning(OLD, &cgroups(unused)), None, "{unused}");
        }
        assert_eq!(class_warning(CLASSES_FIXED, &cgroups("net_cls\t5\t12\t1")), None);
    }

    #[test]
    fn kernel_clients_matter_before_the_fix() {
        let mounts = "proc /proc proc rw 0 0\nfiler:/a /a nfs4 rw,vers=4.2 0 0\nfiler:/b /b nfs4 rw 0 0\n";
        let said = client_warning(OLD, mounts).unwrap();
        assert!(said.starts_with("file systems of other hosts are mounted (nfs4): "), "{said}");
        assert!(client_warning(Version(6, 4, 90), mounts).is_some());
        for fixed in [Version(5, 10, 198), Version(5, 15, 140), Version(6, 1, 57), Version(6, 6, 0), Version(7, 0, 0)] {
            assert_eq!(client_warning(fixed, mounts), None, "{fixed:?}");
        }
        let smb = format!("{mounts}//filer/c /c cifs rw 0 0\n");
        assert!(
            client_warning(Version(5, 15, 140), &smb)
                .unwrap()
                .starts_with("file systems of other hosts are mounted (cifs): ")
        );
        assert_eq!(client_warning(Version(6, 5, 7), &smb), None);
        assert_eq!(client_warning(OLD, "proc /proc proc rw 0 0\n/dev/sda /nfs ext4 rw 0 0\n"), None);
    }
}
