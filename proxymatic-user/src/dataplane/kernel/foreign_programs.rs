//! Finds programs of others on the hooks that rewrite destinations or peer addresses.

use std::{collections::BTreeMap, fs::File, iter, os::fd::AsFd as _, path::Path};

use aya::programs::loaded_programs;
use aya_obj::generated::bpf_attach_type::{self, *};
use nix::libc;

use super::{Pins, bpf, hooks};
use crate::dataplane::Error;

/// The hooks that rewrite a destination or a peer address.
const REWRITE: [(bpf_attach_type, &str); 8] = [
    (BPF_CGROUP_INET4_CONNECT, "connect4"),
    (BPF_CGROUP_INET6_CONNECT, "connect6"),
    (BPF_CGROUP_UDP4_SENDMSG, "sendmsg4"),
    (BPF_CGROUP_UDP6_SENDMSG, "sendmsg6"),
    (BPF_CGROUP_UDP4_RECVMSG, "recvmsg4"),
    (BPF_CGROUP_UDP6_RECVMSG, "recvmsg6"),
    (BPF_CGROUP_INET4_GETPEERNAME, "getpeername4"),
    (BPF_CGROUP_INET6_GETPEERNAME, "getpeername6"),
];

/// A program that is not one of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignProgram {
    /// The kernel's id of the program.
    pub program: u32,
    /// The name of the program, if this process may read it.
    pub name: Option<String>,
    /// The hooks that run the program.
    pub hooks: Vec<&'static str>,
}

/// Returns the programs that run at rewriting hooks of a cgroup, without those behind our links.
///
/// Needs CAP_NET_ADMIN, and CAP_SYS_ADMIN for the names.
///
/// # Errors
/// Fails if the kernel does not show the programs.
pub fn foreign_programs(cgroup: &Path, pins: &Pins) -> Result<Vec<ForeignProgram>, Error> {
    let action = || format!("query the programs on {}", cgroup.display());
    let folder = File::open(cgroup).map_err(|error| Error::kernel(action(), &error))?;
    // Reads our own programs before and after the query, because one may be replaced meanwhile.
    let mut ours = our_programs(pins)?;
    let mut found: BTreeMap<u32, Vec<&'static str>> = BTreeMap::new();
    for (kind, hook) in REWRITE {
        match bpf::effective(folder.as_fd(), kind as u32) {
            Ok(programs) => programs.into_iter().for_each(|program| found.entry(program).or_default().push(hook)),
            // The kernel lacks this hook.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return Err(Error::kernel(action(), &error)),
        }
    }
    ours.extend(our_programs(pins)?);
    found.retain(|program, _| !ours.contains(program));
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let names: BTreeMap<u32, String> = loaded_programs()
        .filter_map(Result::ok)
        .map(|info| (info.id(), info.name_as_str().unwrap_or_default().to_owned()))
        .collect();
    let foreign = |(program, hooks)| ForeignProgram { program, name: names.get(&program).cloned(), hooks };
    Ok(found.into_iter().map(foreign).collect())
}

/// Returns the programs behind our links, those of other map ABI versions included.
fn our_programs(pins: &Pins) -> Result<Vec<u32>, Error> {
    let mut ours = Vec::new();
    for pins in iter::once(pins).chain(&pins.other_versions()) {
        ours.extend(hooks::cgroup_rows(pins)?.iter().map(|row| row.program));
    }
    Ok(ours)
}
