//! System calls that the agent never makes once everything is attached. They fail with EPERM.
//!
//! A list of what is forbidden, not of what is allowed: one of those would be wrong on the next version of a C library,
//! and then nothing would look up names. What is forbidden here needs a capability mostly, which is given up as well; the
//! rest is what an intruder does first.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// Forbidden with whatever arguments.
const CALLS: [libc::c_long; 52] = [
    // Becoming another program.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Looking into other programs.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    // File systems.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_open_by_handle_at,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_mknodat,
    // The kernel itself.
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Other namespaces are entered (setns), none are made.
    libc::SYS_unshare,
    // Becoming another user.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_personality,
    libc::SYS_vhangup,
    libc::SYS_fanotify_init,
];

/// Commands of bpf(2), from linux/bpf.h. All is loaded and attached; maps are still read and written.
const BPF: [(u64, &str); 7] = [
    (5, "BPF_PROG_LOAD"),
    (8, "BPF_PROG_ATTACH"),
    (9, "BPF_PROG_DETACH"),
    (17, "BPF_RAW_TRACEPOINT_OPEN"),
    (18, "BPF_BTF_LOAD"),
    (LINK_CREATE, "BPF_LINK_CREATE"),
    (34, "BPF_LINK_DETACH"),
];

/// Puts hooks in place. Beside another version that can only be done when all is known that it knew.
const LINK_CREATE: u64 = 28;

/// Forbids them to this process, whose threads that are to come inherit it; but not to make links, where another version
/// is to be replaced.
///
/// # Errors
/// The kernel cannot filter system calls, or the filter does not know this machine.
pub fn install(but_links: bool) -> Result<(), seccompiler::Error> {
    seccompiler::apply_filter(&filter(but_links)?)
}

fn filter(but_links: bool) -> Result<BpfProgram, seccompiler::Error> {
    let command = |(number, _): (u64, &str)| {
        SeccompRule::new(vec![SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, number)?])
    };
    let commands = BPF.into_iter().filter(|(number, _)| !but_links || *number != LINK_CREATE);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = CALLS.into_iter().map(|call| (call, Vec::new())).collect();
    rules.insert(libc::SYS_bpf, commands.map(command).collect::<Result<_, _>>()?);
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, std::env::consts::ARCH.try_into()?)?;
    Ok(filter.try_into()?)
}

#[cfg(test)]
mod tests {
    use std::{io, process::Command, thread};

    use super::*;

    /// On a thread of its own: there is no way back.
    fn within<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = thread::spawn(|| {
            install(false).unwrap();
            work()
        });
        thread.join().unwrap()
    }

    #[test]
    fn no_other_program_can_be_run() {
        assert!(Command::new("true").status().unwrap().success());
        let refused = within(|| Command::new("true").status().unwrap_err());
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{refused}");
    }

    #[test]
    fn namespaces_are_not_made_and_files_names_and_threads_go_on() {
        within(|| {
            let refused = nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).unwrap_err();
            assert_eq!(refused, nix::errno::Errno::EPERM);
            assert!(std::fs::read_to_string("/proc/thread-self/status").unwrap().contains("Seccomp:\t2"));
            let listener = std::net::TcpListener::bind("localhost:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            assert!(thread::spawn(move || std::net::TcpStream::connect(("localhost", port)).is_ok()).join().unwrap());
        });
    }
}
