//! Attaches the hooks of sockets: creates the missing links, and replaces the programs of existing ones.

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
    Pins, bpf, effective,
    hook_names::{HOOKS, is_reverse_hook},
    host::cgroup_id,
    pins::remove,
};
use crate::dataplane::Error;

/// A link of a hook that is being attached.
enum Link {
    /// A link on the right cgroup, pinned by this map ABI version.
    Existing(OwnedFd),
    /// A link on the right cgroup, pinned by another map ABI version at this path.
    OtherAbi(OwnedFd, PathBuf),
    /// A link that was just created; dropping it detaches the hook.
    New(FdLink),
}

/// Loads the programs, so that a program that the kernel refuses fails the start before anything changes.
///
/// # Errors
/// Fails if the kernel refuses a program.
pub(super) fn load(object: &mut Ebpf) -> Result<(), Error> {
    for hook in HOOKS {
        load_one(program(object, hook)?)
            .map_err(|error| Error::kernel(format!("load the program of {hook}"), &error))?;
    }
    Ok(())
}

/// Attaches each program in the order of [`HOOKS`], and verifies that the kernel runs all of them.
///
/// The link of a forward hook is taken over from another map ABI version in one step, so that exactly one version
/// sees each connection. A reverse hook gets a link of its own, because open sockets still need the other version's.
///
/// # Errors
/// Fails if a hook cannot be attached. Hooks that this call attached are detached again; earlier ones stay.
pub(super) fn attach_all(object: &mut Ebpf, pins: &Pins, cgroup: &File, others: &[Pins]) -> Result<(), Error> {
    let id = cgroup_id(cgroup)?;
    let mut links = Vec::new();
    for hook in HOOKS {
        let link = match existing_link(pins, others, hook, id) {
            Some(link) => link,
            // The hook runs from here on. If a later hook fails, dropping the list detaches it.
            None => Link::New(attach(object, hook, cgroup)?),
        };
        links.push((hook, link));
    }
    let mut new_links = Vec::new();
    for (hook, link) in links {
        match replace(object, pins, cgroup, hook, link)? {
            Some(link) => new_links.push((hook, link)),
            None => pin_program(object, pins, hook)?,
        }
    }
    let new: Vec<_> = new_links.iter().map(|(hook, _)| *hook).collect();
    for (hook, link) in new_links {
        if let Err(error) = pin_link(pins, hook, link).and_then(|()| pin_program(object, pins, hook)) {
            // No hooks are better than some: without `sock_release` a connection would count for ever. The earlier
            // pins of these hooks belonged to another cgroup or to a removed one.
            for hook in new.iter().rev() {
                pins.unpin(hook);
            }
            return Err(error);
        }
    }
    effective::verify(pins, cgroup)
}

/// Returns the link through which a hook is attached to this cgroup already.
fn existing_link(pins: &Pins, others: &[Pins], hook: &str, cgroup: u64) -> Option<Link> {
    let attached_link = |path: &Path| {
        let link = bpf::open(path).ok()?;
        (bpf::cgroup_link_info(link.as_fd()).ok()?.cgroup == cgroup).then_some(link)
    };
    if let Some(link) = attached_link(&pins.link(hook)) {
        return Some(Link::Existing(link));
    }
    let mut others = others.iter().filter(|_| !is_reverse_hook(hook)).map(|other| other.link(hook));
    others.find_map(|path| Some(Link::OtherAbi(attached_link(&path)?, path)))
}

/// Puts the program behind an existing link. Returns a link that still has to be pinned.
fn replace(object: &mut Ebpf, pins: &Pins, cgroup: &File, hook: &str, link: Link) -> Result<Option<FdLink>, Error> {
    let failed = |what: &str, error: &dyn std::error::Error| Error::kernel(format!("{what} {hook}"), error);
    let (link, other_pin) = match link {
        Link::New(link) => return Ok(Some(link)),
        Link::Existing(link) => (link, None),
        Link::OtherAbi(link, path) => (link, Some(path)),
    };
    let fd = program_fd(program(object, hook)?).map_err(|error| failed("open the program of", &error))?;
    match bpf::update_link(link.as_fd(), fd) {
        Ok(()) => {}
        // The cgroup was removed meanwhile, and its link with it.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => return attach(object, hook, cgroup).map(Some),
        Err(error) => return Err(failed("replace the program of", &error)),
    }
    if let Some(path) = other_pin {
        // In one step, so that after a crash the next start finds exactly one pin, whichever version it is.
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
            // cgroup_bpf_attach: a program on a cgroup above was attached without flags, or with others than ours.
            Error::Kernel { action, reason } if exclusive => Error::host(
                format!(
                    "cannot {action}: {reason}: another program holds this hook exclusively, on this cgroup or on one above"
                ),
                "find the program with `bpftool cgroup tree` and attach it with BPF_F_ALLOW_MULTI",
            ),
            error => error,
        }
    })
}

/// Attaches a program through a bpf_link, which the mode `Single` creates. Other programs may stay beside it.
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
    unpin_old(&path, "link", hook)?;
    link.pin(&path).map(drop).map_err(|error| Error::kernel(format!("pin the link of {hook}"), &error))
}

fn pin_program(object: &mut Ebpf, pins: &Pins, hook: &str) -> Result<(), Error> {
    let path = pins.program(hook);
    unpin_old(&path, "program", hook)?;
    let pinned = program(object, hook)?.pin(&path);
    pinned.map_err(|error| Error::kernel(format!("pin the program of {hook}"), &error))
}

fn unpin_old(path: &Path, what: &str, hook: &str) -> Result<(), Error> {
    let failed = |error: io::Error| Error::kernel(format!("unpin the old {what} of {hook}"), &error);
    remove(path).map(drop).map_err(failed)
}

pub(super) fn program<'a>(object: &'a mut Ebpf, hook: &str) -> Result<&'a mut Program, Error> {
    object.program_mut(hook).ok_or_else(|| Error::Kernel {
        action: format!("load the program of {hook}"),
        reason: "the embedded object has no program of that name".into(),
    })
}

/// How often loading a program is tried if a signal interrupts the verifier.
const LOADS: usize = 5;

/// Loads a program of any type that hooks and feature probes use.
pub(super) fn load_one(program: &mut Program) -> Result<(), ProgramError> {
    // A signal during verification makes the load fail with EAGAIN (bpf_check, do_check of kernel/bpf/verifier.c).
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
