//! Logs each verdict, in the object for `--bpf-log`. The plain object has not one instruction of it.

use proxymatic_common::Reason;
use proxymatic_ebpf::{Choice, Flow};

/// Logs that a flow is refused.
#[inline(always)]
pub(crate) fn refused(flow: &Flow, service: u32, reason: Reason) {
    say(flow, reason, service, NO_ID);
}

/// Logs that a flow to a service is left alone.
#[inline(always)]
pub(crate) fn left(flow: &Flow, reason: Reason) {
    say(flow, reason, NO_ID, NO_ID);
}

/// Logs that a flow is sent to a backend.
#[inline(always)]
pub(crate) fn sent(flow: &Flow, choice: &Choice) {
    say(flow, choice.reason, choice.service, choice.backend);
}

/// Stands for no service or no backend.
const NO_ID: u32 = u32::MAX;

#[cfg(not(feature = "log"))]
#[inline(always)]
fn say(_: &Flow, _: Reason, _: u32, _: u32) {}

#[cfg(feature = "log")]
use self::loud::say;

#[cfg(feature = "log")]
mod loud {
    use aya_ebpf::helpers::generated as helper;
    use aya_log_ebpf::{debug, info};
    use proxymatic_common::{REASONS, Reason};
    use proxymatic_ebpf::Flow;

    use super::NO_ID;

    /// The length of the longest name of a reason, in bytes.
    const NAME: usize = {
        let (mut longest, mut i) = (0, 0);
        while i < REASONS {
            let length = Reason::ALL[i].name().len();
            if length > longest {
                longest = length;
            }
            i += 1;
        }
        longest
    };

    /// The names, padded with blanks. A `match` would compile to a table of pointers, which BPF does not support.
    static NAMES: [[u8; NAME]; REASONS] = {
        let mut names = [[b' '; NAME]; REASONS];
        let mut i = 0;
        while i < REASONS {
            let name = Reason::ALL[i].name().as_bytes();
            let mut at = 0;
            while at < name.len() {
                names[i][at] = name[at];
                at += 1;
            }
            i += 1;
        }
        names
    };

    #[inline(always)]
    pub(super) fn say(flow: &Flow, reason: Reason, service: u32, backend: u32) {
        let [a, b, c, d] = flow.address.v6_words();
        let to = u32::from(flow.port.get()) << 8 | u32::from(flow.protocol);
        log_verdict(reason as u32, to, u64::from(service) << 32 | u64::from(backend), both(a, b), both(c, d));
    }

    /// Joins two words in their order in memory.
    #[inline(always)]
    const fn both(first: u32, second: u32) -> u64 {
        if cfg!(target_endian = "little") {
            (second as u64) << 32 | first as u64
        } else {
            (first as u64) << 32 | second as u64
        }
    }

    /// A subprogram, so that the verifier checks it once, and with a stack of its own.
    #[unsafe(no_mangle)]
    #[inline(never)]
    extern "C" fn log_verdict(reason: u32, to: u32, ids: u64, first: u64, second: u64) -> u64 {
        let Some(name) = NAMES.get(reason as usize) else { return 0 };
        // SAFETY: names are ASCII.
        let name = unsafe { core::str::from_utf8_unchecked(name) };
        let mut address = [0; 16];
        let (front, back) = address.split_at_mut(8);
        front.copy_from_slice(&first.to_ne_bytes());
        back.copy_from_slice(&second.to_ne_bytes());
        let (port, protocol) = (to >> 8, to & 0xff);
        let (service, backend) = ((ids >> 32) as u32, ids as u32);
        // SAFETY: no arguments.
        let process = unsafe { (helper::bpf_get_current_pid_tgid() >> 32) as u32 };
        if backend != NO_ID {
            debug!(
                (),
                "{:i} port {} protocol {} of process {}: service {} backend {} {}",
                address,
                port,
                protocol,
                process,
                service,
                backend,
                name
            );
        } else if service != NO_ID {
            info!(
                (),
                "{:i} port {} protocol {} of process {}: service {} refused, {}",
                address,
                port,
                protocol,
                process,
                service,
                name
            );
        } else {
            debug!(
                (),
                "{:i} port {} protocol {} of process {}: left alone, {}", address, port, protocol, process, name
            );
        }
        0
    }
}
