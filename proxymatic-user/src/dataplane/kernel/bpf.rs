//! The commands of bpf(2) that aya 0.14 has no words for: another program for a cgroup link, in one step.

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

const BPF_OBJ_GET: libc::c_int = 7;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;

#[repr(C)]
struct ObjGet {
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

/// Opens a pin.
///
/// # Errors
/// There is none, or it is not to be opened.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let command = ObjGet { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    let fd = bpf(BPF_OBJ_GET, &command)?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a program to a cgroup, at a hook by its number (`enum bpf_attach_type`), until what is given is dropped.
///
/// # Errors
/// The kernel has no such links, or does not attach that program there.
pub(super) fn create_link(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, kind: u32) -> io::Result<OwnedFd> {
    let (program, target) = (program.as_raw_fd() as u32, cgroup.as_raw_fd() as u32);
    let fd = bpf(BPF_LINK_CREATE, &LinkCreate { program, target, kind, flags: 0 })?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts another program behind a link. The hook is never without one: connections see the old or the new.
///
/// # Errors
/// ENOLINK where the cgroup of the link is gone.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let command =
        LinkUpdate { link: link.as_raw_fd() as u32, program: program.as_raw_fd() as u32, flags: 0, old_program: 0 };
    bpf(BPF_LINK_UPDATE, &command).map(|_| ())
}

/// A command to which the kernel answers in the attributes.
///
/// # Errors
/// The kernel says no.
pub(super) fn ask<T>(command: libc::c_int, attributes: &mut T) -> io::Result<()> {
    // SAFETY: as below; the kernel writes within the struct and where the struct says, which the caller vouches for.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    // SAFETY: the attributes are a live struct of the size given, laid out as `union bpf_attr` is for this command.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}
