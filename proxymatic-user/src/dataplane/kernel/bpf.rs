//! The commands of bpf(2) that aya 0.14 has no words for: another program for a link in one step, where a link is
//! attached, links to interfaces by number, what runs on a cgroup, and many entries of a map at once.

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

/// What is pinned, or opened by its pin.
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

/// The begin of `struct bpf_link_info`, for a link of a cgroup.
#[repr(C)]
#[derive(Default)]
struct CgroupLinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    pad: u32,
    cgroup: u64,
    attach_type: u32,
    pad2: u32,
}

/// The same for a link of an interface, of TC or of XDP.
#[repr(C)]
#[derive(Default)]
struct InterfaceLinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    pad: u32,
    interface: u32,
    attach_type: u32,
}

/// Whole as kernels have it by now: they write to fields at its end without asking how much of it was given.
#[repr(C)]
struct Query {
    target: u32,
    attach_type: u32,
    flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    pad: u32,
    rest: [u64; 4],
}

/// Where a link is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attached {
    /// The kernel's id of the link.
    pub(super) link: u32,
    /// The kernel's id of the program that it runs.
    pub(super) program: u32,
    /// The id of the cgroup; 0 where that has been removed, or the link was detached by force.
    pub(super) cgroup: u64,
    /// The kernel's number of the hook (`enum bpf_attach_type`).
    pub(super) attach_type: u32,
}

/// Where a link of an interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OnInterface {
    /// The kernel's id of the link.
    pub(super) link: u32,
    /// The kernel's id of the program that it runs.
    pub(super) program: u32,
    /// The number of the interface; 0 where that has been removed, or the link was detached by force.
    pub(super) interface: u32,
}

#[repr(C)]
struct Element {
    map: u32,
    pad: u32,
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
/// There is none, or it is not to be opened.
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
/// Something is there already, or it is no place for pins.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut command = Object { path: path.as_ptr() as u64, fd: object.as_raw_fd() as u32, flags: 0 };
    bpf(BPF_OBJ_PIN, &mut command).map(drop)
}

/// Attaches a program to a cgroup, at a hook by its number (`enum bpf_attach_type`), until what is given is dropped.
///
/// # Errors
/// The kernel has no such links, or does not attach that program there.
pub(super) fn create_link(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, kind: u32) -> io::Result<OwnedFd> {
    link(program, cgroup.as_raw_fd() as u32, kind, 0)
}

/// Attaches a program to an interface by its number, in the network namespace of this thread.
///
/// # Errors
/// EINVAL where the kernel has no such links; EBUSY where of XDP there is a program already.
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

/// Puts another program behind a link. The hook is never without one: connections see the old or the new.
///
/// # Errors
/// ENOLINK where the cgroup of the link is gone.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut command =
        LinkUpdate { link: link.as_raw_fd() as u32, program: program.as_raw_fd() as u32, flags: 0, old_program: 0 };
    bpf(BPF_LINK_UPDATE, &mut command).map(drop)
}

/// Detaches a link now. One that merely loses its pin runs its program until a worker of the kernel has come to it.
///
/// # Errors
/// EOPNOTSUPP where the kernel does not detach links of that kind by force.
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(BPF_LINK_DETACH, &mut LinkDetach { link: link.as_raw_fd() as u32 }).map(drop)
}

/// Where a link is attached.
///
/// # Errors
/// It is no link of a cgroup.
pub(super) fn attached(link: BorrowedFd<'_>) -> io::Result<Attached> {
    let info: CgroupLinkInfo = info(link)?;
    if info.kind != BPF_LINK_TYPE_CGROUP {
        return Err(io::Error::other("it is no link of a cgroup"));
    }
    Ok(Attached { link: info.id, program: info.program, cgroup: info.cgroup, attach_type: info.attach_type })
}

/// The same of a link of an interface.
///
/// # Errors
/// It is none.
pub(super) fn on_interface(link: BorrowedFd<'_>) -> io::Result<OnInterface> {
    let info: InterfaceLinkInfo = info(link)?;
    if ![BPF_LINK_TYPE_XDP, BPF_LINK_TYPE_TCX].contains(&info.kind) {
        return Err(io::Error::other("it is no link of an interface"));
    }
    Ok(OnInterface { link: info.id, program: info.program, interface: info.interface })
}

fn info<T: Default>(link: BorrowedFd<'_>) -> io::Result<T> {
    let mut info = T::default();
    let mut command =
        InfoByFd { fd: link.as_raw_fd() as u32, length: size_of::<T>() as u32, info: (&raw mut info) as u64 };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut command)?;
    Ok(info)
}

/// The ids of the programs that run for sockets of a cgroup at a hook, in order: its own, then those of its parents.
///
/// # Errors
/// This process may not ask.
pub(super) fn effective(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<Vec<u32>> {
    // 64 is the most that the kernel takes for one cgroup; parents may have more.
    let mut programs = vec![0_u32; 64];
    loop {
        let mut command = Query {
            target: cgroup.as_raw_fd() as u32,
            attach_type,
            flags: BPF_F_QUERY_EFFECTIVE,
            attach_flags: 0,
            programs: programs.as_mut_ptr() as u64,
            count: programs.len() as u32,
            pad: 0,
            rest: [0; 4],
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

/// All entries of a hash, some thousands with each system call: one by one they cost two calls each.
///
/// # Errors
/// The kernel cannot (it is older than 5.6), or says no.
pub(super) fn entries<K: aya::Pod, V: aya::Pod>(map: BorrowedFd<'_>) -> io::Result<Vec<(K, V)>> {
    let mut found = Vec::new();
    each_entry(map, |key, value| found.push((key, value)))?;
    Ok(found)
}

/// The same one after the other, so that they need not all be kept.
///
/// # Errors
/// As for [`entries`].
pub(super) fn each_entry<K: aya::Pod, V: aya::Pod>(map: BorrowedFd<'_>, mut each: impl FnMut(K, V)) -> io::Result<()> {
    /// More than a bucket of a hash of ours ever holds.
    const STEP: usize = 4096;
    let (mut from, mut to, mut first, mut step) = (0_u32, 0_u32, true, STEP);
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
        // SAFETY: the kernel has written so many keys and values, which are within what was allotted, and of which any
        // bytes are a value (Pod).
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

/// Removes an entry of a hash.
///
/// # Errors
/// ENOENT where it is not there.
pub(super) fn delete<K: aya::Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    let mut command =
        Element { map: map.as_raw_fd() as u32, pad: 0, key: std::ptr::from_ref(key) as u64, value: 0, flags: 0 };
    bpf(BPF_MAP_DELETE_ELEM, &mut command).map(drop)
}

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: the attributes are a live struct of the size given, laid out as `union bpf_attr` is for this command; what
    // it points to is live and as long as it says.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}
