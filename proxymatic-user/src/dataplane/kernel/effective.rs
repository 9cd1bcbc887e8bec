//! Verifies that the kernel runs the attached hooks.
//!
//! A pinned link may run nothing: its cgroup was removed, or it was detached by force.

use std::{collections::BTreeMap, fs::File, os::fd::AsFd as _};

use super::{
    Pins,
    bpf::{self, CgroupLink},
    cgroup,
    hook_names::HOOKS,
};
use crate::dataplane::Error;

/// Verifies that every hook runs for the sockets of a cgroup.
///
/// # Errors
/// Fails if a hook does not run, or if the kernel does not show whether it does.
pub(super) fn verify(pins: &Pins, cgroup: &File) -> Result<(), Error> {
    for hook in HOOKS {
        let failed = |error| Error::kernel(format!("ask whether {hook} runs"), &error);
        let link = bpf::open(&pins.link(hook)).and_then(|link| bpf::cgroup_link_info(link.as_fd())).map_err(failed)?;
        let programs = bpf::effective(cgroup.as_fd(), link.attach_type).map_err(failed)?;
        if !programs.contains(&link.program) {
            return Err(Error::Kernel {
                action: format!("run {hook}"),
                reason: format!(
                    "it is attached, but the kernel runs other programs for this cgroup ({programs:?}, not {})",
                    link.program
                ),
            });
        }
    }
    Ok(())
}

/// The cgroups of links, each opened once.
#[derive(Default)]
pub(super) struct EffectiveCache(BTreeMap<u64, Option<Option<File>>>);

impl EffectiveCache {
    /// Returns whether the program of a link runs for the sockets of its cgroup; `None` if this process cannot find
    /// out.
    pub(super) fn runs(&mut self, link: &CgroupLink) -> Option<bool> {
        if link.cgroup == 0 {
            return Some(false);
        }
        let cgroup = self.0.entry(link.cgroup).or_insert_with(|| cgroup::open(link.cgroup).ok()).as_ref()?;
        // The cgroup was removed: its sockets keep it alive in the kernel, but no program enters it any more.
        let Some(cgroup) = cgroup else { return Some(false) };
        let programs = bpf::effective(cgroup.as_fd(), link.attach_type).ok()?;
        Some(programs.contains(&link.program))
    }
}
