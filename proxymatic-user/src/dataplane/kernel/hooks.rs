//! The hooks: which there are, how they are put in place, and what they cost.

use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
    time::Duration,
};

use aya::{
    Ebpf,
    programs::{
        CgroupAttachMode, Program, ProgramError, ProgramInfo,
        links::{FdLink, LinkError, PinnedLink},
    },
};
use nix::libc;

use super::{Pins, bpf};
use crate::dataplane::Error;

/// The hooks by name, in the order in which they are put in place: those that lead back before those that lead there.
pub const HOOKS: [&str; 12] = [
    "sock_release",
    "tcp_states",
    "getpeername4",
    "getpeername6",
    "recvmsg4",
    "recvmsg6",
    "post_bind4",
    "post_bind6",
    "sendmsg4",
    "sendmsg6",
    "connect4",
    "connect6",
];

/// Loads the programs and puts each behind its link; makes the links that are not there.
///
/// `moved` says that the links there are of another cgroup.
pub(super) fn put(object: &mut Ebpf, pins: &Pins, cgroup: &fs::File, moved: bool) -> Result<(), Error> {
    for hook in HOOKS {
        load(program(object, hook)?).map_err(|error| Error::kernel(format!("load the program of {hook}"), &error))?;
    }
    let mut made = Vec::new();
    for hook in HOOKS {
        match put_one(object, pins, cgroup, hook, moved) {
            Ok(true) => made.push(hook),
            Ok(false) => {}
            Err(error) => {
                // Half a set is worse than none: a connect without its release would count for ever.
                for hook in made.iter().rev() {
                    pins.unpin(hook);
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Whether a link was made.
fn put_one(object: &mut Ebpf, pins: &Pins, cgroup: &fs::File, hook: &str, moved: bool) -> Result<bool, Error> {
    let failed = |what: &str, error: &dyn std::error::Error| Error::kernel(format!("{what} {hook}"), error);
    let path = pins.link(hook);
    let program = program(object, hook)?;
    let replaced = match bpf::open(&path) {
        Ok(link) if !moved => {
            let fd = program_fd(program).map_err(|error| failed("open the program of", &error))?;
            match bpf::update_link(link.as_fd(), fd) {
                Ok(()) => true,
                // The cgroup is gone, and the link with it.
                Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => false,
                Err(error) => return Err(failed("replace the program of", &error)),
            }
        }
        _ => false,
    };
    if !replaced {
        let link = attach(program, cgroup).map_err(|error| failed("attach", &error))?;
        remove(&path).map_err(|error| failed("unpin the old link of", &error))?;
        link.pin(&path).map_err(|error| failed("pin the link of", &error))?;
    }
    remove(&pins.program(hook)).map_err(|error| failed("unpin the old program of", &error))?;
    pin_program(program, &pins.program(hook)).map_err(|error| failed("pin the program of", &error))?;
    Ok(!replaced)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn program<'a>(object: &'a mut Ebpf, hook: &str) -> Result<&'a mut Program, Error> {
    object.program_mut(hook).ok_or_else(|| Error::Kernel {
        action: format!("load the program of {hook}"),
        reason: "the embedded object has none of that name".into(),
    })
}

pub(super) fn load(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

pub(super) fn program_fd(program: &Program) -> Result<BorrowedFd<'_>, ProgramError> {
    let fd = match program {
        Program::CgroupSockAddr(program) => program.fd()?,
        Program::CgroupSock(program) => program.fd()?,
        Program::SockOps(program) => program.fd()?,
        _ => return Err(ProgramError::UnexpectedProgramType),
    };
    Ok(fd.as_fd())
}

/// `Single` is the mode that makes a bpf_link; others may still be attached to the same cgroup beside it.
fn attach(program: &mut Program, cgroup: &fs::File) -> Result<FdLink, ProgramError> {
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

fn pin_program(program: &mut Program, path: &Path) -> Result<(), aya::pin::PinError> {
    program.pin(path)
}

/// One hook, as `hook show` prints it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct HookRow {
    /// Its name, which is that of the program.
    pub hook: &'static str,
    /// The kernel's id of the program that the link runs.
    pub program: u32,
    /// The kernel's id of the link.
    pub link: u32,
    /// The pin of the link.
    pub pin: String,
    /// How often the program ran while the kernel measured.
    pub runs: u64,
    /// How long one run took on average; `None` where the kernel measured none.
    pub mean_ns: Option<f64>,
}

/// The hooks that are in place.
///
/// # Errors
/// Nothing is pinned, or a pin cannot be read.
pub fn rows(pins: &Pins) -> Result<Vec<HookRow>, Error> {
    HOOKS.iter().rev().filter_map(|hook| row(pins, hook).transpose()).collect()
}

fn row(pins: &Pins, hook: &'static str) -> Result<Option<HookRow>, Error> {
    let path = pins.link(hook);
    if !path.exists() {
        return Ok(None);
    }
    let failed = |error: &dyn std::error::Error| Error::kernel(format!("read {}", path.display()), error);
    let link: FdLink = PinnedLink::from_pin(&path).map_err(|error| failed(&error))?.into();
    let link = link.info().map_err(|error| failed(&error))?;
    let info = ProgramInfo::from_pin(pins.program(hook)).map_err(|error| failed(&error))?;
    let (runs, time) = (info.run_count(), info.run_time());
    Ok(Some(HookRow {
        hook,
        program: link.program_id(),
        link: link.id(),
        pin: path.display().to_string(),
        runs,
        mean_ns: mean(runs, time),
    }))
}

fn mean(runs: u64, time: Duration) -> Option<f64> {
    (runs > 0).then(|| time.as_nanos() as f64 / runs as f64)
}

/// The hooks that are in place, with runs and times of `during` only. The kernel measures all programs of the host
/// meanwhile, which costs each run some tens of nanoseconds.
///
/// # Errors
/// As for [`rows`]; and where this process may not switch the measuring on.
pub fn measure(pins: &Pins, during: impl FnOnce()) -> Result<Vec<HookRow>, Error> {
    let measuring = aya::sys::enable_stats(aya::sys::Stats::RunTime)
        .map_err(|error| Error::kernel("switch on the kernel's measuring of programs", &error))?;
    let before = totals(pins)?;
    during();
    let after = totals(pins)?;
    drop(measuring);
    let mut rows = rows(pins)?;
    for row in &mut rows {
        let of = |totals: &[(&str, u64, Duration)]| {
            totals.iter().find(|(hook, ..)| *hook == row.hook).map_or((0, Duration::ZERO), |(_, n, t)| (*n, *t))
        };
        let ((n0, t0), (n1, t1)) = (of(&before), of(&after));
        row.runs = n1.saturating_sub(n0);
        row.mean_ns = mean(row.runs, t1.saturating_sub(t0));
    }
    Ok(rows)
}

fn totals(pins: &Pins) -> Result<Vec<(&'static str, u64, Duration)>, Error> {
    let of = |hook: &'static str| {
        let path = pins.program(hook);
        let info = ProgramInfo::from_pin(&path);
        let info = info.map_err(|error| Error::kernel(format!("read {}", path.display()), &error))?;
        Ok((hook, info.run_count(), info.run_time()))
    };
    HOOKS.iter().filter(|hook| pins.program(hook).exists()).map(|hook| of(hook)).collect()
}
