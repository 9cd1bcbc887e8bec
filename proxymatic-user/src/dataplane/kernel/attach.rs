//! Puts the hooks in place: makes the links that are not there, and puts new programs behind those that are.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        CgroupAttachMode, Program, ProgramError,
        links::{FdLink, LinkError},
    },
};
use nix::libc;

use super::{
    HOOKS, Pins, bpf, effective,
    host::cgroup_id,
    pins::{is_reverse_hook, remove},
};
use crate::dataplane::Error;

/// A hook on its way into place.
enum Link {
    /// It is attached where it should be, and pinned here.
    Stands(OwnedFd),
    /// It is attached where it should be, by another version, which has pinned it there.
    OfAnother(OwnedFd, PathBuf),
    /// It has just been attached, and goes with this value.
    Made(FdLink),
}

/// Loads the programs: what this kernel refuses is refused before anything is changed.
///
/// # Errors
/// The kernel's reason.
pub(super) fn load(object: &mut Ebpf) -> Result<(), Error> {
    for hook in HOOKS {
        load_one(program(object, hook)?)
            .map_err(|error| Error::kernel(format!("load the program of {hook}"), &error))?;
    }
    Ok(())
}

/// Puts each program behind its link, in the order of [`HOOKS`], and asks the kernel whether all of them run.
///
/// A hook that leads there is taken over from another version by its link, in one step: no connection is seen by both
/// versions, nor by none. Those that lead back get links of their own beside the other version's, which still has
/// sockets to lead back.
///
/// # Errors
/// A hook cannot be put in place. What was attached by this call is not any more; hooks that were in place before are.
pub(super) fn put(object: &mut Ebpf, pins: &Pins, cgroup: &File, others: &[Pins]) -> Result<(), Error> {
    let id = cgroup_id(cgroup)?;
    let mut links = Vec::new();
    for hook in HOOKS {
        let link = match standing(pins, others, hook, id) {
            Some(link) => link,
            // Attached from here on; where a later one cannot be, this one goes when the list does.
            None => Link::Made(attach(object, hook, cgroup)?),
        };
        links.push((hook, link));
    }
    let mut made = Vec::new();
    for (hook, link) in links {
        match replace(object, pins, cgroup, hook, link)? {
            Some(link) => made.push((hook, link)),
            None => pin_program(object, pins, hook)?,
        }
    }
    let new: Vec<_> = made.iter().map(|(hook, _)| *hook).collect();
    for (hook, link) in made {
        if let Err(error) = pin_link(pins, hook, link).and_then(|()| pin_program(object, pins, hook)) {
            // Half a set is worse than none: a connect without its release would count for ever. Whatever was pinned
            // for these hooks before belonged to another cgroup, or to one that is gone.
            for hook in new.iter().rev() {
                pins.unpin(hook);
            }
            return Err(error);
        }
    }
    effective::verify(pins, cgroup)
}

/// The link of a hook that is attached to a cgroup already.
fn standing(pins: &Pins, others: &[Pins], hook: &str, cgroup: u64) -> Option<Link> {
    let there = |path: &Path| {
        let link = bpf::open(path).ok()?;
        (bpf::attached(link.as_fd()).ok()?.cgroup == cgroup).then_some(link)
    };
    if let Some(link) = there(&pins.link(hook)) {
        return Some(Link::Stands(link));
    }
    let mut others = others.iter().filter(|_| !is_reverse_hook(hook)).map(|other| other.link(hook));
    others.find_map(|path| Some(Link::OfAnother(there(&path)?, path)))
}

/// Puts the program behind a link that stands. Gives one that has still to be pinned.
fn replace(object: &mut Ebpf, pins: &Pins, cgroup: &File, hook: &str, link: Link) -> Result<Option<FdLink>, Error> {
    let failed = |what: &str, error: &dyn std::error::Error| Error::kernel(format!("{what} {hook}"), error);
    let (link, of_another) = match link {
        Link::Made(link) => return Ok(Some(link)),
        Link::Stands(link) => (link, None),
        Link::OfAnother(link, path) => (link, Some(path)),
    };
    let fd = program_fd(program(object, hook)?).map_err(|error| failed("open the program of", &error))?;
    match bpf::update_link(link.as_fd(), fd) {
        Ok(()) => {}
        // The cgroup has gone just now, and the link with it.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => return attach(object, hook, cgroup).map(Some),
        Err(error) => return Err(failed("replace the program of", &error)),
    }
    if let Some(path) = of_another {
        // In one step too: whichever version starts after a crash here finds it once.
        fs::rename(path, pins.link(hook)).map_err(|error| failed("take over the link of", &error))?;
    }
    Ok(None)
}

fn attach(object: &mut Ebpf, hook: &str, cgroup: &File) -> Result<FdLink, Error> {
    attach_program(program(object, hook)?, cgroup).map_err(|error| {
        let exclusive = matches!(&error, ProgramError::SyscallError(error)
            if error.io_error.raw_os_error() == Some(libc::EPERM));
        let error = Error::kernel(format!("attach {hook}"), &error);
        match error {
            // cgroup_bpf_attach: the flags of those above say that nobody below may, or they must be the same here.
            Error::Kernel { action, reason } if exclusive => Error::host(
                format!(
                    "cannot {action}: {reason}: another program has this hook of the cgroup, or of one above, to itself"
                ),
                "find it with `bpftool cgroup tree` and have it attached with BPF_F_ALLOW_MULTI",
            ),
            error => error,
        }
    })
}

/// `Single` is the mode that makes a bpf_link; others may still be attached to the same cgroup beside it.
fn attach_program(program: &mut Program, cgroup: &File) -> Result<FdLink, ProgramError> {
    let not_a_link = |_: LinkError| ProgramError::UnexpectedProgramType;
    match program {
        Program::CgroupSockAddr(program) => {
            let id = program.attach(cgroup, CgroupAttachMode::Single)?;
            program.take_link(id)?.try_into().map_err(not_a_link)
        }
        Program::CgroupSock(program) => {
            let id = program.attach(cgroup, CgroupAttachMode::Single)?;
            program.take_link(id)?.try_into().map_err(not_a_link)
        }
        Program::SockOps(program) => {
            let id = program.attach(cgroup, CgroupAttachMode::Single)?;
            program.take_link(id)?.try_into().map_err(not_a_link)
        }
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn pin_link(pins: &Pins, hook: &str, link: FdLink) -> Result<(), Error> {
    let path = pins.link(hook);
    make_room(&path, "link", hook)?;
    link.pin(&path).map(drop).map_err(|error| Error::kernel(format!("pin the link of {hook}"), &error))
}

fn pin_program(object: &mut Ebpf, pins: &Pins, hook: &str) -> Result<(), Error> {
    let path = pins.program(hook);
    make_room(&path, "program", hook)?;
    let pinned = program(object, hook)?.pin(&path);
    pinned.map_err(|error| Error::kernel(format!("pin the program of {hook}"), &error))
}

fn make_room(path: &Path, what: &str, hook: &str) -> Result<(), Error> {
    let failed = |error: io::Error| Error::kernel(format!("unpin the old {what} of {hook}"), &error);
    remove(path).map(drop).map_err(failed)
}

pub(super) fn program<'a>(object: &'a mut Ebpf, hook: &str) -> Result<&'a mut Program, Error> {
    object.program_mut(hook).ok_or_else(|| Error::Kernel {
        action: format!("load the program of {hook}"),
        reason: "the embedded object has none of that name".into(),
    })
}

/// How often a program is loaded before a kernel that was interrupted is believed.
const LOADS: usize = 5;

/// Loads a program of one of the kinds that hooks and probes are.
pub(super) fn load_one(program: &mut Program) -> Result<(), ProgramError> {
    // A signal that comes while the kernel verifies a program ends that (bpf_check, do_check of kernel/bpf/verifier.c).
    let interrupted = |loaded: &Result<(), ProgramError>| matches!(loaded, Err(ProgramError::LoadError { io_error, .. }) if io_error.raw_os_error() == Some(libc::EAGAIN));
    for _ in 1..LOADS {
        let loaded = load_once(program);
        if !interrupted(&loaded) {
            return loaded;
        }
    }
    load_once(program)
}

fn load_once(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        Program::Xdp(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

pub(super) fn program_fd(program: &Program) -> Result<BorrowedFd<'_>, ProgramError> {
    let fd = match program {
        Program::CgroupSockAddr(program) => program.fd()?,
        Program::CgroupSock(program) => program.fd()?,
        Program::SockOps(program) => program.fd()?,
        Program::SchedClassifier(program) => program.fd()?,
        Program::Xdp(program) => program.fd()?,
        _ => return Err(ProgramError::UnexpectedProgramType),
    };
    Ok(fd.as_fd())
}
