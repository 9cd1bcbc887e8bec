//! The commands of bpf(2) that aya 0.14 lacks: replacing the program of a link, querying links and the effective
//! programs of a cgroup, links to interfaces by index, and batched look-ups.

use std::{
    ffi::CString,
    io, mem,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    ptr,
};

use aya_obj::generated::{
    BPF_ALU64, BPF_CALL, BPF_EXIT, BPF_F_QUERY_EFFECTIVE, BPF_JMP, BPF_RSH, bpf_attach_type, bpf_attr,
    bpf_cmd::{self, *},
    bpf_insn, bpf_link_info,
    bpf_link_type::*,
    bpf_prog_type,
};
use nix::libc;

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

/// Opens a pin.
///
/// # Errors
/// Fails if there is no pin, or if this process may not open it.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = zeroed();
    attributes.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    bpf(BPF_OBJ_GET, &mut attributes).map(owned)
}

/// Pins a link or a program.
///
/// # Errors
/// Fails if the path exists, or is not on a bpffs.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = zeroed();
    attributes.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    attributes.__bindgen_anon_4.bpf_fd = object.as_raw_fd() as u32;
    bpf(BPF_OBJ_PIN, &mut attributes).map(drop)
}

/// Attaches a program to a hook of a cgroup until the returned link is dropped.
///
/// # Errors
/// Fails if the kernel does not support such links, or refuses the program.
pub(super) fn create_link(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    kind: bpf_attach_type,
) -> io::Result<OwnedFd> {
    link(program, cgroup.as_raw_fd() as u32, kind, 0)
}

/// Attaches a program to an interface by its index, in the network namespace of this thread.
///
/// # Errors
/// EINVAL if the kernel does not support such links; EBUSY if the interface has an XDP program already.
pub(super) fn create_interface_link(
    program: BorrowedFd<'_>,
    interface: u32,
    kind: bpf_attach_type,
    flags: u32,
) -> io::Result<OwnedFd> {
    link(program, interface, kind, flags)
}

fn link(program: BorrowedFd<'_>, target: u32, kind: bpf_attach_type, flags: u32) -> io::Result<OwnedFd> {
    let mut attributes = zeroed();
    attributes.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
    attributes.link_create.__bindgen_anon_2.target_fd = target;
    attributes.link_create.attach_type = kind as u32;
    attributes.link_create.flags = flags;
    bpf(BPF_LINK_CREATE, &mut attributes).map(owned)
}

/// Replaces the program of a link atomically: each connection sees the old program or the new one.
///
/// # Errors
/// ENOLINK if the cgroup of the link was removed.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = zeroed();
    attributes.link_update.link_fd = link.as_raw_fd() as u32;
    attributes.link_update.__bindgen_anon_1.new_prog_fd = program.as_raw_fd() as u32;
    bpf(BPF_LINK_UPDATE, &mut attributes).map(drop)
}

/// Detaches a link at once. Without this, an unpinned link runs until a kernel worker has released it.
///
/// # Errors
/// EOPNOTSUPP if the kernel cannot detach such links by force.
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = zeroed();
    attributes.link_detach.link_fd = link.as_raw_fd() as u32;
    bpf(BPF_LINK_DETACH, &mut attributes).map(drop)
}

/// Describes a link of a cgroup.
///
/// # Errors
/// Fails if the link is not one of a cgroup.
pub(super) fn cgroup_link_info(link: BorrowedFd<'_>) -> io::Result<CgroupLink> {
    let info = info(link)?;
    if info.type_ != BPF_LINK_TYPE_CGROUP as u32 {
        return Err(io::Error::other("not a link of a cgroup"));
    }
    // SAFETY: all fields of the union are integers, and the kernel has written those of a link of this type.
    let of = unsafe { info.__bindgen_anon_1.cgroup };
    Ok(CgroupLink { link: info.id, program: info.prog_id, cgroup: of.cgroup_id, attach_type: of.attach_type })
}

/// Describes a link of an interface.
///
/// # Errors
/// Fails if the link is not one of an interface.
pub(super) fn interface_link_info(link: BorrowedFd<'_>) -> io::Result<InterfaceLink> {
    let info = info(link)?;
    if ![BPF_LINK_TYPE_XDP as u32, BPF_LINK_TYPE_TCX as u32].contains(&info.type_) {
        return Err(io::Error::other("not a link of an interface"));
    }
    // SAFETY: all fields of the union are integers. The index of the interface is the first field for both types.
    let interface = unsafe { info.__bindgen_anon_1.tcx.ifindex };
    Ok(InterfaceLink { link: info.id, program: info.prog_id, interface })
}

fn info(link: BorrowedFd<'_>) -> io::Result<bpf_link_info> {
    // SAFETY: a struct of integers, for which zero is a value.
    let mut info: bpf_link_info = unsafe { mem::zeroed() };
    let mut attributes = zeroed();
    attributes.info.bpf_fd = link.as_raw_fd() as u32;
    attributes.info.info_len = size_of::<bpf_link_info>() as u32;
    attributes.info.info = (&raw mut info) as u64;
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
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
        let mut attributes = zeroed();
        attributes.query.__bindgen_anon_1.target_fd = cgroup.as_raw_fd() as u32;
        attributes.query.attach_type = attach_type;
        attributes.query.query_flags = BPF_F_QUERY_EFFECTIVE;
        attributes.query.prog_ids = programs.as_mut_ptr() as u64;
        attributes.query.__bindgen_anon_2.count = programs.len() as u32;
        match bpf(BPF_PROG_QUERY, &mut attributes) {
            Ok(_) => {
                // SAFETY: the field was set above, and the kernel has written the number of programs to it.
                programs.truncate(unsafe { attributes.query.__bindgen_anon_2.count } as usize);
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
        let mut attributes = zeroed();
        attributes.batch.in_batch = if first { 0 } else { (&raw const from) as u64 };
        attributes.batch.out_batch = (&raw mut to) as u64;
        attributes.batch.keys = keys.as_mut_ptr() as u64;
        attributes.batch.values = values.as_mut_ptr() as u64;
        attributes.batch.count = step as u32;
        attributes.batch.map_fd = map.as_raw_fd() as u32;
        let last = match bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes) {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                step *= 2;
                continue;
            }
            Err(error) => return Err(error),
        };
        // SAFETY: the count was set above; the kernel has written it and that many keys and values, which is within the
        // capacity, and any bytes are a value of a Pod type.
        unsafe {
            let count = (attributes.batch.count as usize).min(step);
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
    let mut attributes = zeroed();
    attributes.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
    attributes.__bindgen_anon_2.key = ptr::from_ref(key) as u64;
    bpf(BPF_MAP_DELETE_ELEM, &mut attributes).map(drop)
}

/// Returns the id of this process in the initial pid namespace, as hooks see it: the result of a program of three
/// instructions, which runs once and is never attached.
///
/// # Errors
/// Fails if the kernel cannot run programs of raw tracepoints on request (it is built without CONFIG_BPF_EVENTS).
pub(super) fn current_tgid() -> io::Result<u32> {
    /// BPF_FUNC_get_current_pid_tgid of linux/bpf.h.
    const GET_CURRENT_PID_TGID: i32 = 14;
    /// call; r0 >>= 32; exit.
    const PROGRAM: [(u8, i32); 3] = [
        ((BPF_JMP | BPF_CALL) as u8, GET_CURRENT_PID_TGID),
        ((BPF_ALU64 | BPF_RSH) as u8, 32),
        ((BPF_JMP | BPF_EXIT) as u8, 0),
    ];
    let instructions = PROGRAM.map(|(code, imm)| {
        // SAFETY: a struct of integers, for which zero is a value: both registers are r0.
        let mut instruction: bpf_insn = unsafe { mem::zeroed() };
        (instruction.code, instruction.imm) = (code, imm);
        instruction
    });
    let mut attributes = zeroed();
    attributes.__bindgen_anon_3.prog_type = bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT as u32;
    attributes.__bindgen_anon_3.insn_cnt = instructions.len() as u32;
    attributes.__bindgen_anon_3.insns = instructions.as_ptr() as u64;
    attributes.__bindgen_anon_3.license = c"MIT".as_ptr() as u64;
    let program = bpf(BPF_PROG_LOAD, &mut attributes).map(owned)?;
    let mut attributes = zeroed();
    attributes.test.prog_fd = program.as_raw_fd() as u32;
    bpf(BPF_PROG_TEST_RUN, &mut attributes)?;
    // SAFETY: an integer, which the kernel has written.
    Ok(unsafe { attributes.test.retval })
}

/// Returns attributes of zeros, which the kernel requires in all fields that a command does not use.
fn zeroed() -> bpf_attr {
    // SAFETY: a union of integers, for which zero is a value.
    unsafe { mem::zeroed() }
}

/// Takes over a descriptor that a command returned.
fn owned(descriptor: libc::c_int) -> OwnedFd {
    // SAFETY: the kernel just returned this descriptor.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

fn bpf(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<libc::c_int> {
    // SAFETY: the attributes are a live union of the given size, set for this command; its pointers refer to live
    // memory of the lengths in it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_mut(attributes), size_of::<bpf_attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}
