//! What this host must have, checked with a remedy for each.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

// Both by name, because the first macro calls the second.
use nix::{getsockopt_impl, sockopt_impl};
use nix::{
    libc,
    sys::{
        socket::{AddressFamily, SockFlag, SockType, getsockopt, socket},
        statfs::{FsType, fstatfs, statfs},
    },
    time::{ClockId, clock_gettime},
};

use rustix::thread::{CapabilitySet, capabilities};

use super::bpf;
use crate::dataplane::Error;

/// From linux/magic.h.
const BPF_FS: FsType = FsType(0xcafe_4a11);
pub(super) const CGROUP2: FsType = FsType(0x6367_7270);

sockopt_impl!(
    /// The cookie of a socket's network namespace.
    NetnsCookie, GetOnly, libc::SOL_SOCKET, SO_NETNS_COOKIE, u64
);
/// From asm-generic/socket.h.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// Checks the kernel version, the capabilities and the file system of the pins.
///
/// # Errors
/// The first thing that is missing, with its remedy.
pub(super) fn check(bpffs: &Path) -> Result<(), Error> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    check_kernel(release.trim())?;
    check_own_capabilities()?;
    check_bpffs(bpffs)
}

/// Checks the capabilities of this thread.
///
/// # Errors
/// Fails if capabilities are missing.
pub(super) fn check_own_capabilities() -> Result<(), Error> {
    check_capabilities(capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective))
}

/// Requires Linux 5.10: sk_storage and links on all hooks, getpeername, ring buffers.
fn check_kernel(release: &str) -> Result<(), Error> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (5, 10) {
        return Ok(());
    }
    Err(Error::host(format!("kernel {release} is too old"), "5.10 or newer is needed: upgrade the kernel"))
}

fn check_capabilities(effective: CapabilitySet) -> Result<(), Error> {
    let has = |capability| effective.contains(capability);
    let mut missing = Vec::new();
    if !has(CapabilitySet::NET_ADMIN) {
        missing.push("CAP_NET_ADMIN");
    }
    // Both were part of CAP_SYS_ADMIN until 5.8.
    if !has(CapabilitySet::SYS_ADMIN) {
        missing.extend((!has(CapabilitySet::BPF)).then_some("CAP_BPF"));
        missing.extend((!has(CapabilitySet::PERFMON)).then_some("CAP_PERFMON"));
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::host(
        format!("this process lacks {}", missing.join(" and ")),
        "run it as root, or its container with --privileged",
    ))
}

fn check_bpffs(bpffs: &Path) -> Result<(), Error> {
    // The folder itself may not exist yet: its file system will be that of its nearest existing parent.
    let there = bpffs.ancestors().find(|path| path.exists()).unwrap_or(bpffs);
    match statfs(there) {
        Ok(stat) if stat.filesystem_type() == BPF_FS => Ok(()),
        _ => {
            let mount = bpffs.parent().unwrap_or(bpffs).display();
            Err(Error::host(
                format!("{} is not on a BPF file system", bpffs.display()),
                format!(
                    "mount one (mount -t bpf bpf {mount}), share the host's with the container, or choose another --bpffs"
                ),
            ))
        }
    }
}

/// Opens a folder of a cgroup2 tree.
pub(super) fn open_cgroup(path: &Path) -> Result<File, Error> {
    let remedy = "choose a folder of a cgroup2 file system with --cgroup";
    let folder =
        File::open(path).map_err(|error| Error::host(format!("cannot open {}: {error}", path.display()), remedy))?;
    match fstatfs(folder.as_fd()) {
        Ok(stat) if stat.filesystem_type() == CGROUP2 => Ok(folder),
        _ => Err(Error::host(format!("{} is not on a cgroup2 file system", path.display()), remedy)),
    }
}

/// The kernel's id of a cgroup: the inode number of its folder.
pub(super) fn cgroup_id(folder: &File) -> Result<u64, Error> {
    let data = folder.metadata().map_err(|error| Error::kernel("read the id of the cgroup", &error))?;
    Ok(data.ino())
}

/// The id of a cgroup by its path below the root of the tree, as in `/proc/<pid>/cgroup`; `None` if there is none.
pub fn find_cgroup(root: &Path, path: &str) -> Option<u64> {
    // A path out of the tree would yield an inode of another file system.
    let below: PathBuf = path.split('/').filter(|part| !matches!(*part, "" | "." | "..")).collect();
    cgroup_id(&open_cgroup(&root.join(below)).ok()?).ok()
}

/// Returns the process id in the initial pid namespace, by which hooks recognize the agent's own sockets.
///
/// # Errors
/// Fails if this process is in another pid namespace and the kernel does not tell that id.
pub(super) fn initial_tgid() -> Result<u32, Error> {
    /// PROC_PID_INIT_INO of include/linux/proc_ns.h.
    const INITIAL: u64 = 0xefff_fffc;
    let namespace = fs::metadata("/proc/self/ns/pid").map(|data| data.ino());
    if namespace.is_ok_and(|inode| inode == INITIAL) { Ok(std::process::id()) } else { known_tgid(bpf::current_tgid()) }
}

fn known_tgid(found: io::Result<u32>) -> Result<u32, Error> {
    match found {
        Ok(tgid) if tgid != 0 => Ok(tgid),
        other => {
            let reason = other.map_or_else(|error| error.to_string(), |_| "it is 0".into());
            Err(Error::host(
                format!(
                    "the agent is in a pid namespace of its own, and this kernel does not tell its id outside ({reason}), \
                     so its own connections could be sent to services"
                ),
                "run its container with --pid=host",
            ))
        }
    }
}

/// The first port that a program binds without CAP_NET_BIND_SERVICE.
pub(super) fn first_unprivileged_port() -> u32 {
    /// PROT_SOCK: the kernel's default.
    const DEFAULT: u32 = 1024;
    let read = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    read.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(DEFAULT)
}

/// The cookie of this process's network namespace.
///
/// # Errors
/// Fails if the kernel does not support such cookies.
pub fn netns_cookie() -> Result<u64, Error> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
    let socket = socket.map_err(|error| Error::kernel("open a socket", &error))?;
    getsockopt(&socket, NetnsCookie).map_err(|_| {
        Error::host(
            "this kernel does not show the network namespace of a process (SO_NETNS_COOKIE came with 5.14)",
            "start with --loopback all or --loopback none",
        )
    })
}

/// Nanoseconds of the monotonic clock, the one that hooks read.
pub fn monotonic() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// The time since a moment of the monotonic clock, given in nanoseconds.
pub fn age(at: u64) -> std::time::Duration {
    std::time::Duration::from_nanos(monotonic().saturating_sub(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_below_5_10_are_refused_with_a_remedy() {
        for fine in ["5.10.0-46-amd64", "5.10", "6.18.44-fc", "7.3.4+deb13", "10.0"] {
            assert!(check_kernel(fine).is_ok(), "{fine}");
        }
        for old in ["5.9.16", "4.19.0-27-amd64", "3.10.0", ""] {
            let error = check_kernel(old).unwrap_err().to_string();
            assert!(error.contains("too old; 5.10 or newer is needed"), "{error}");
        }
    }

    #[test]
    fn unknown_process_id_is_refused_with_the_remedy() {
        assert_eq!(known_tgid(Ok(7)).unwrap(), 7);
        for found in [Ok(0), Err(io::Error::from_raw_os_error(libc::EINVAL))] {
            let error = known_tgid(found).unwrap_err().to_string();
            assert!(error.contains("does not tell its id outside (") && error.ends_with("--pid=host"), "{error}");
        }
    }

    #[test]
    fn missing_capabilities_are_named() {
        let net = CapabilitySet::NET_ADMIN;
        assert!(check_capabilities(net | CapabilitySet::SYS_ADMIN).is_ok());
        assert!(check_capabilities(net | CapabilitySet::BPF | CapabilitySet::PERFMON).is_ok());
        let error = check_capabilities(CapabilitySet::BPF).unwrap_err().to_string();
        assert!(error.starts_with("this process lacks CAP_NET_ADMIN and CAP_PERFMON; run it as root"), "{error}");
        assert!(check_capabilities(CapabilitySet::empty()).is_err());
    }
}
