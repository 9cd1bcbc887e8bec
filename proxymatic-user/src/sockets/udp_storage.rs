//! Translations of UDP sockets. sock_diag shows socket storage of TCP only, so this reads the map through a duplicate
//! of each socket's descriptor.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::fd::OwnedFd,
};

use aya::maps::{MapData, SkStorage};
use proxymatic_common::Socket;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// Returns the stored translations by inode, for those of these sockets that a process has open.
pub(super) fn read_udp_storage(map: &SkStorage<MapData, Socket>, inodes: &BTreeSet<u32>) -> BTreeMap<u32, Socket> {
    let mut found = BTreeMap::new();
    if inodes.is_empty() {
        return found;
    }
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        for (inode, number) in open_sockets_of(pid) {
            if inodes.contains(&inode)
                && !found.contains_key(&inode)
                && let Some(copy) = duplicate_fd(pid, number)
                && let Ok(socket) = map.get(&copy, 0)
            {
                found.insert(inode, socket);
            }
        }
        if found.len() == inodes.len() {
            break;
        }
    }
    found
}

/// Returns the inode and the descriptor of each socket that a process has open.
pub(super) fn open_sockets_of(pid: i32) -> impl Iterator<Item = (u32, i32)> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors.filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
        Some((inode, entry.file_name().to_str()?.parse().ok()?))
    })
}

fn duplicate_fd(pid: i32, descriptor: i32) -> Option<OwnedFd> {
    let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty()).ok()
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsRawFd as _, os::unix::fs::MetadataExt as _};

    use super::*;

    #[test]
    fn sockets_of_a_process_are_found_by_inode() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let inode = fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap().ino();
        let found = open_sockets_of(std::process::id() as i32).find(|(found, _)| u64::from(*found) == inode);
        assert_eq!(found.map(|(_, descriptor)| descriptor), Some(socket.as_raw_fd()));
    }
}
