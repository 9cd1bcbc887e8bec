//! The attached hooks: which there are, whether they run, and how long they take.

use std::{io, os::fd::AsFd as _, time::Duration};

use aya::programs::ProgramInfo;

use super::{
    Pins, bpf,
    effective::EffectiveCache,
    hook_names::{HOOKS, PACKET_HOOKS},
    hook_row::{HookRow, mean_ns},
    interfaces,
};
use crate::dataplane::Error;

/// Returns true if all hooks of sockets are attached, and no hook is known not to run.
pub fn all_run(rows: &[HookRow]) -> bool {
    let on_cgroup = rows.iter().filter(|row| row.interface.is_none()).count();
    on_cgroup == HOOKS.len() && rows.iter().all(|row| row.effective != Some(false))
}

/// Returns the attached hooks, those of interfaces last.
///
/// # Errors
/// Fails if a pin cannot be read.
pub fn rows(pins: &Pins) -> Result<Vec<HookRow>, Error> {
    let mut rows = cgroup_rows(pins)?;
    rows.extend(interfaces::rows(pins)?);
    Ok(rows)
}

/// Returns the hooks that are attached to cgroups.
///
/// # Errors
/// Fails if a pin cannot be read.
pub(super) fn cgroup_rows(pins: &Pins) -> Result<Vec<HookRow>, Error> {
    let mut cache = EffectiveCache::default();
    HOOKS.iter().rev().filter_map(|hook| row(pins, hook, &mut cache).transpose()).collect()
}

fn row(pins: &Pins, hook: &'static str, cache: &mut EffectiveCache) -> Result<Option<HookRow>, Error> {
    let path = pins.link(hook);
    let failed = |error: &dyn std::error::Error| Error::kernel(format!("read {}", path.display()), error);
    let link = match bpf::open(&path) {
        Ok(link) => bpf::cgroup_link_info(link.as_fd()).map_err(|error| failed(&error))?,
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
        effective: cache.runs(&link),
        runs,
        mean_ns: mean_ns(runs, time),
    }))
}

/// Returns the attached hooks, with the runs and times during `during` only. The kernel measures all programs of the
/// host meanwhile, which costs each run some tens of nanoseconds.
///
/// # Errors
/// As for [`rows`]; and fails if this process may not switch the measuring on.
pub fn measure(pins: &Pins, during: impl FnOnce()) -> Result<Vec<HookRow>, Error> {
    let measuring = aya::sys::enable_stats(aya::sys::Stats::RunTime)
        .map_err(|error| Error::kernel("switch on the kernel's statistics of programs", &error))?;
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
        row.mean_ns = mean_ns(row.runs, t1.saturating_sub(t0));
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
