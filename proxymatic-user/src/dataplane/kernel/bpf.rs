//! The commands of bpf(2) that aya 0.14 lacks: replacing the program of a link, querying links and the effective
//! programs of a cgroup, links to interfaces by index, and batched look-ups.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use nix::libc;

const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_DETACH: libc::c_int = 34;

const BPF_LINK_TYPE_CGROUP: u32 = 3;
const BPF_LINK_TYPE_XDP: u32 = 6;
const BPF_LINK_TYPE_TCX: u32 = 11;
const BPF_F_QUERY_EFFECTIVE: u32 = 1;

/// BPF_OBJ_PIN and BPF_OBJ_GET.
#[repr(C)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    kind: u32,
    flags: u32,
}

#[repr(C)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

#[repr(C)]
struct LinkDetach {
    link: u32,
}

#[repr(C)]
struct InfoByFd {
    fd: u32,
    length: u32,
    info: u64,
}

/// The beginning of `struct bpf_link_info` for a link of a cgroup.
#[repr(C)]
#[derive(Default)]
struct RawCgroupLinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    _pad: u32,
    cgroup: u64,
    attach_type: u32,
    _pad2: u32,
}

/// The beginning of `struct bpf_link_info` for a TC or XDP link of an interface.
#[repr(C)]
#[derive(Default)]
struct RawInterfaceLinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    _pad: u32,
    interface: u32,
    attach_type: u32,
}

/// BPF_PROG_QUERY in its present length: newer kernels write its last fields without checking the given size.
#[repr(C)]
struct Query {
    target: u32,
    attach_type: u32,
    flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    _pad: u32,
    _reserved: [u64; 4],
}

/// A link of a cgroup, as the kernel describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CgroupLink {
    /// The kernel's id of the link.
    pub(super) link: u32,
    /// The kernel's id of the program that it runs.
    pub(super) program: u32,
    /// The id of the cgroup; 0 if it was removed, or if the link was detached by force.
    pub(super) cgroup: u64,
    /// The hook's number in `enum bpf_attach_type`.
    pub(super) attach_type: u32,
}

/// A link of an interface, as the kernel describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InterfaceLink {
    /// The kernel's id of the link.
    pub(super) link: u32,
    /// The kernel's id of the program that it runs.
    pub(super) program: u32,
    /// The index of the interface; 0 if it was removed, or if the link was detached by force.
    pub(super) interface: u32,
}

#[repr(C)]
struct Element {
    map: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct LookupBatch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    elem_flags: u64,
    flags: u64,
}

/// Opens a pin.
///
/// # Errors
/// Fails if there is no pin, or if this process may not open it.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut command = Object { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    let fd = bpf(BPF_OBJ_GET, &mut command)?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pins a link or a program.
///
/// # Errors
/// Fails if the path exists, or is not on a bpffs.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut command = Object { path: path.as_ptr() as u64, fd: object.as_raw_fd() as u32, flags: 0 };
    bpf(BPF_OBJ_PIN, &mut command).map(drop)
}

/// Attaches a program to a hook of a cgroup (a number of `enum bpf_attach_type`) until the returned link is dropped.
///
/// # Errors
/// Fails if the kernel does not support such links, or refuses the program.
pub(super) fn create_link(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, kind: u32) -> io::Result<OwnedFd> {
    link(program, cgroup.as_raw_fd() as u32, kind, 0)
}

/// Attaches a program to an interface by its index, in the network namespace of this thread.
///
/// # Errors
/// EINVAL if the kernel does not support such links; EBUSY if the interface has an XDP program already.
pub(super) fn create_interface_link(
    program: BorrowedFd<'_>,
    interface: u32,
    kind: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    link(program, interface, kind, flags)
}

fn link(program: BorrowedFd<'_>, target: u32, kind: u32, flags: u32) -> io::Result<OwnedFd> {
    let program = program.as_raw_fd() as u32;
    let fd = bpf(BPF_LINK_CREATE, &mut LinkCreate { program, target, kind, flags })?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Replaces the program of a link atomically: each connection sees the old program or the new one.
///
/// # Errors
/// ENOLINK if the cgroup of the link was removed.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut command =
        LinkUpdate { link: link.as_raw_fd() as u32, program: program.as_raw_fd() as u32, flags: 0, old_program: 0 };
    bpf(BPF_LINK_UPDATE, &mut command).map(drop)
}

/// Detaches a link at once. Without this, an unpinned link runs until a kernel worker has released it.
///
/// # Errors
/// EOPNOTSUPP if the kernel cannot detach such links by force.
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(BPF_LINK_DETACH, &mut LinkDetach { link: link.as_raw_fd() as u32 }).map(drop)
}

/// Describes a link of a cgroup.
///
/// # Errors
/// Fails if the link is not one of a cgroup.
pub(super) fn cgroup_link_info(link: BorrowedFd<'_>) -> io::Result<CgroupLink> {
    let info: RawCgroupLinkInfo = info(link)?;
    if info.kind != BPF_LINK_TYPE_CGROUP {
        return Err(io::Error::other("not a link of a cgroup"));
    }
    Ok(CgroupLink { link: info.id, program: info.program, cgroup: info.cgroup, attach_type: info.attach_type })
}

/// Describes a link of an interface.
///
/// # Errors
/// Fails if the link is not one of an interface.
pub(super) fn interface_link_info(link: BorrowedFd<'_>) -> io::Result<InterfaceLink> {
    let info: RawInterfaceLinkInfo = info(link)?;
    if ![BPF_LINK_TYPE_XDP, BPF_LINK_TYPE_TCX].contains(&info.kind) {
        return Err(io::Error::other("not a link of an interface"));
    }
    Ok(InterfaceLink { link: info.id, program: info.program, interface: info.interface })
}

fn info<T: Default>(link: BorrowedFd<'_>) -> io::Result<T> {
    let mut info = T::default();
    let mut command =
        InfoByFd { fd: link.as_raw_fd() as u32, length: size_of::<T>() as u32, info: (&raw mut info) as u64 };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut command)?;
    Ok(info)
}

/// Returns the ids of the programs that run at a hook of a cgroup, in order: its own, then those of its parents.
///
/// # Errors
/// Fails if this process may not query them.
pub(super) fn effective(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<Vec<u32>> {
    // The kernel allows 64 for one cgroup; parents may have more.
    let mut programs = vec![0_u32; 64];
    loop {
        let mut command = Query {
            target: cgroup.as_raw_fd() as u32,
            attach_type,
            flags: BPF_F_QUERY_EFFECTIVE,
            attach_flags: 0,
            programs: programs.as_mut_ptr() as u64,
            count: programs.len() as u32,
            _pad: 0,
            _reserved: [0; 4],
        };
        match bpf(BPF_PROG_QUERY, &mut command) {
            Ok(_) => {
                programs.truncate(command.count as usize);
                return Ok(programs);
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => programs.resize(2 * programs.len(), 0),
            Err(error) => return Err(error),
        }
    }
}

/// Returns all entries of a hash map, in batches of thousands; single look-ups cost two system calls for each entry.
///
/// # Errors
/// Fails if the kernel is older than 5.6 or refuses.
pub(super) fn entries<K: aya::Pod, V: aya::Pod>(map: BorrowedFd<'_>) -> io::Result<Vec<(K, V)>> {
    let mut found = Vec::new();
    each_entry(map, |key, value| found.push((key, value)))?;
    Ok(found)
}

/// Calls `each` for all entries of a hash map, so that not all have to be in memory.
///
/// # Errors
/// As for [`entries`].
pub(super) fn each_entry<K: aya::Pod, V: aya::Pod>(map: BorrowedFd<'_>, mut each: impl FnMut(K, V)) -> io::Result<()> {
    /// More than any bucket of our hash maps holds.
    const BATCH: usize = 4096;
    let (mut from, mut to, mut first, mut step) = (0_u32, 0_u32, true, BATCH);
    loop {
        let (mut keys, mut values) = (Vec::<K>::with_capacity(step), Vec::<V>::with_capacity(step));
        let mut command = LookupBatch {
            in_batch: if first { 0 } else { (&raw const from) as u64 },
            out_batch: (&raw mut to) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: step as u32,
            map: map.as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        let last = match bpf(BPF_MAP_LOOKUP_BATCH, &mut command) {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                step *= 2;
                continue;
            }
            Err(error) => return Err(error),
        };
        let count = (command.count as usize).min(step);
        // SAFETY: the kernel has written this many keys and values, which is within the capacity, and any bytes are a
        // value of a Pod type.
        unsafe {
            keys.set_len(count);
            values.set_len(count);
        }
        keys.into_iter().zip(values).for_each(|(key, value)| each(key, value));
        if last {
            return Ok(());
        }
        (from, first) = (to, false);
    }
}

/// Removes an entry of a hash map.
///
/// # Errors
/// ENOENT if there is no such entry.
pub(super) fn delete<K: aya::Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    let mut command =
        Element { map: map.as_raw_fd() as u32, _pad: 0, key: std::ptr::from_ref(key) as u64, value: 0, flags: 0 };
    bpf(BPF_MAP_DELETE_ELEM, &mut command).map(drop)
}

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: the attributes are a live struct of the size given, laid out as `union bpf_attr` is for this command;
    // its pointers refer to live memory of the lengths in it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}
