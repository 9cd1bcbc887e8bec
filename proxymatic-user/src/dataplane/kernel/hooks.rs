//! The hooks: which there are, whether they run, and what they cost.

use std::{borrow::Cow, io, os::fd::AsFd as _, time::Duration};

use aya::programs::ProgramInfo;

use super::{
    Pins, bpf,
    effective::EffectiveCache,
    interfaces::{self, PACKET_HOOKS},
};
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

/// One hook, as `hook show` prints it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct HookRow {
    /// Its name, which is that of the program.
    pub hook: &'static str,
    /// The interface that it is on, by the name that the operator gave; `None` where it is on a cgroup.
    pub interface: Option<String>,
    /// The kernel's id of the program that it runs.
    pub program: u32,
    /// The kernel's id of the link; `None` where it is a filter of clsact.
    pub link: Option<u32>,
    /// The pin of the link.
    pub pin: Option<String>,
    /// Whether the kernel runs it for the sockets of its cgroup, or the packets of its interface; `None` where that cannot
    /// be seen from here.
    pub effective: Option<bool>,
    /// How often the program ran while the kernel measured, on all interfaces together.
    pub runs: u64,
    /// How long one run took on average; `None` where the kernel measured none.
    pub mean_ns: Option<f64>,
}

impl HookRow {
    /// What it is called: its name, and of one on an interface which that is.
    pub fn name(&self) -> Cow<'static, str> {
        match &self.interface {
            Some(interface) => format!("{}@{interface}", self.hook).into(),
            None => self.hook.into(),
        }
    }
}

/// Whether all that has to be there for the sockets of this host is, and everything there runs.
pub fn all_run(rows: &[HookRow]) -> bool {
    let on_cgroup = rows.iter().filter(|row| row.interface.is_none()).count();
    on_cgroup == HOOKS.len() && rows.iter().all(|row| row.effective != Some(false))
}

/// The hooks that are in place, those of interfaces last.
///
/// # Errors
/// Nothing is pinned, or a pin cannot be read.
pub fn rows(pins: &Pins) -> Result<Vec<HookRow>, Error> {
    let mut rows = on_cgroup(pins)?;
    rows.extend(interfaces::rows(pins)?);
    Ok(rows)
}

/// Those on cgroups.
///
/// # Errors
/// A pin cannot be read.
pub(super) fn on_cgroup(pins: &Pins) -> Result<Vec<HookRow>, Error> {
    let mut sight = EffectiveCache::default();
    HOOKS.iter().rev().filter_map(|hook| row(pins, hook, &mut sight).transpose()).collect()
}

fn row(pins: &Pins, hook: &'static str, sight: &mut EffectiveCache) -> Result<Option<HookRow>, Error> {
    let path = pins.link(hook);
    let failed = |error: &dyn std::error::Error| Error::kernel(format!("read {}", path.display()), error);
    let link = match bpf::open(&path) {
        Ok(link) => bpf::attached(link.as_fd()).map_err(|error| failed(&error))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    let info = ProgramInfo::from_pin(pins.program(hook)).map_err(|error| failed(&error))?;
    let (runs, time) = (info.run_count(), info.run_time());
    Ok(Some(HookRow {
        hook,
        interface: None,
        program: link.program,
        link: Some(link.link),
        pin: Some(path.display().to_string()),
        effective: sight.runs(&link),
        runs,
        mean_ns: mean(runs, time),
    }))
}

pub(super) fn mean(runs: u64, time: Duration) -> Option<f64> {
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
    HOOKS.iter().chain(&PACKET_HOOKS).filter(|hook| pins.program(hook).exists()).map(|hook| of(hook)).collect()
}
