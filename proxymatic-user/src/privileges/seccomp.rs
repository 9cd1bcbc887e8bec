//! The system calls that the agent never makes after the start. They fail with EPERM.
//!
//! This is a deny list, because an allow list would break with the next version of a C library, for example name
//! resolution. Most of these calls need a capability that is dropped as well; an intruder would try the others first.

use std::collections::BTreeMap;

use aya_obj::generated::bpf_cmd::{self, *};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// The denied system calls.
const DENIED_CALLS: [libc::c_long; 52] = [
    // Running another program.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Reading other processes.
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
    // Namespaces are entered (setns), never created.
    libc::SYS_unshare,
    // Changing the user.
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

/// The denied commands of bpf(2): they load and attach programs, while maps stay accessible.
const DENIED_BPF_COMMANDS: [bpf_cmd; 7] = [
    BPF_PROG_LOAD,
    BPF_PROG_ATTACH,
    BPF_PROG_DETACH,
    BPF_RAW_TRACEPOINT_OPEN,
    BPF_BTF_LOAD,
    BPF_LINK_CREATE,
    BPF_LINK_DETACH,
];

/// Denies these system calls to this thread and those that it starts. `but_links` still allows BPF_LINK_CREATE, which
/// attaches hooks: an agent that waits to replace another map ABI version does so only later.
///
/// # Errors
/// Fails if the kernel cannot filter system calls, or if the filter does not support this architecture.
pub fn install(but_links: bool) -> Result<(), seccompiler::Error> {
    seccompiler::apply_filter(&filter(but_links)?)
}

fn filter(but_links: bool) -> Result<BpfProgram, seccompiler::Error> {
    let rule = |command: bpf_cmd| {
        SeccompRule::new(vec![SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, command as u64)?])
    };
    let commands = DENIED_BPF_COMMANDS.into_iter().filter(|command| !but_links || *command != BPF_LINK_CREATE);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = DENIED_CALLS.into_iter().map(|call| (call, Vec::new())).collect();
    rules.insert(libc::SYS_bpf, commands.map(rule).collect::<Result<_, _>>()?);
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, std::env::consts::ARCH.try_into()?)?;
    Ok(filter.try_into()?)
}

#[cfg(test)]
mod tests {
    use std::{io, process::Command, thread};

    use super::*;

    /// Runs `work` on a thread of its own, because the filter cannot be removed.
    fn with_filter<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = thread::spawn(|| {
            install(false).unwrap();
            work()
        });
        thread.join().unwrap()
    }

    #[test]
    fn other_programs_cannot_be_run() {
        assert!(Command::new("true").status().unwrap().success());
        let refused = with_filter(|| Command::new("true").status().unwrap_err());
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{refused}");
    }

    #[test]
    fn unshare_fails_while_files_names_and_threads_work() {
        with_filter(|| {
            let refused = nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).unwrap_err();
            assert_eq!(refused, nix::errno::Errno::EPERM);
            assert!(std::fs::read_to_string("/proc/thread-self/status").unwrap().contains("Seccomp:\t2"));
            let listener = std::net::TcpListener::bind("localhost:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            assert!(thread::spawn(move || std::net::TcpStream::connect(("localhost", port)).is_ok()).join().unwrap());
        });
    }
}
