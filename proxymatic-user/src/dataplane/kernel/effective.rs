//! Whether the hooks that are attached do run: asked of the kernel, which alone knows.
//!
//! A link can be pinned and yet run nothing: its cgroup was removed, or somebody detached it.

use std::{collections::BTreeMap, fs::File, os::fd::AsFd as _};

use super::{
    HOOKS, Pins,
    bpf::{self, Attached},
    cgroup,
};
use crate::dataplane::Error;

/// Holds that every hook runs for the sockets of a cgroup.
///
/// # Errors
/// One does not, or cannot be asked for.
pub(super) fn verify(pins: &Pins, cgroup: &File) -> Result<(), Error> {
    for hook in HOOKS {
        let failed = |error| Error::kernel(format!("ask whether {hook} runs"), &error);
        let link = bpf::open(&pins.link(hook)).and_then(|link| bpf::attached(link.as_fd())).map_err(failed)?;
        let programs = bpf::effective(cgroup.as_fd(), link.attach_type).map_err(failed)?;
        if !programs.contains(&link.program) {
            return Err(Error::Kernel {
                action: format!("have {hook} run"),
                reason: format!(
                    "it is attached, but the kernel runs other programs for this cgroup ({programs:?}, not {})",
                    link.program
                ),
            });
        }
    }
    Ok(())
}

/// The cgroups of links, each looked for once.
#[derive(Default)]
pub(super) struct EffectiveCache(BTreeMap<u64, Option<Option<File>>>);

impl EffectiveCache {
    /// Whether the program of a link runs for the sockets of the link's cgroup; `None` where that cannot be seen from
    /// here.
    pub(super) fn runs(&mut self, link: &Attached) -> Option<bool> {
        if link.cgroup == 0 {
            return Some(false);
        }
        let cgroup = self.0.entry(link.cgroup).or_insert_with(|| cgroup::open(link.cgroup).ok()).as_ref()?;
        // Its folder has been removed: sockets keep the rest of it for a while, but no program comes to it any more.
        let Some(cgroup) = cgroup else { return Some(false) };
        let programs = bpf::effective(cgroup.as_fd(), link.attach_type).ok()?;
        Some(programs.contains(&link.program))
    }
}
