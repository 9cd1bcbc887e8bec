//! The hook on TCP events: established and failed connections, and new listeners.

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
        BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_SOCK_OPS_TCP_LISTEN_CB, BPF_TCP_CLOSE, BPF_TCP_SYN_SENT,
    },
    programs::SockOpsContext,
};
use proxymatic_common::Port;
use proxymatic_ebpf::Bind;

use crate::maps::{self, Maps};

/// The hook's return value, which the kernel ignores for these events.
const DONE: u32 = 1;

/// Handles a TCP event: connect, established, state change or listen.
#[inline(always)]
pub(crate) fn on_tcp_event(context: &SockOpsContext) -> u32 {
    let op = context.op();
    if op == BPF_SOCK_OPS_TCP_LISTEN_CB {
        on_listen(context);
        return DONE;
    }
    if op != BPF_SOCK_OPS_TCP_CONNECT_CB && op != BPF_SOCK_OPS_STATE_CB && op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB {
        return DONE;
    }
    // SAFETY: a field of the live context.
    let socket = unsafe { (*context.ops).__bindgen_anon_2.sk };
    // SAFETY: null, or the socket pointer of this hook's own context.
    let Some(socket) = (unsafe { maps::socket(maps::mptcp_parent(socket.cast()), false) }) else { return DONE };
    if op == BPF_SOCK_OPS_TCP_CONNECT_CB {
        // The call replaces all flags, so those that other programs have set are included.
        let _ = context.set_cb_flags((context.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG) as i32);
    } else if op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB {
        let _ = context.set_cb_flags((context.cb_flags() & !BPF_SOCK_OPS_STATE_CB_FLAG) as i32);
        // The kernel's value is in eighths of a microsecond.
        // SAFETY: a field of the live context.
        let rtt = unsafe { (&raw const (*context.ops).srtt_us).read_volatile() } >> 3;
        proxymatic_ebpf::on_established(&Maps, socket, rtt);
    } else if context.arg(0) == BPF_TCP_SYN_SENT && context.arg(1) == BPF_TCP_CLOSE {
        proxymatic_ebpf::on_connect_failed(&Maps, socket);
    }
    DONE
}

/// Handles listen(2).
#[inline(always)]
fn on_listen(context: &SockOpsContext) {
    // SAFETY: fields of the live context, the port in the byte order of the host.
    let (port, socket) =
        unsafe { ((&raw const (*context.ops).local_port).read_volatile(), (*context.ops).__bindgen_anon_2.sk) };
    // SAFETY: null, or the socket pointer of this hook's own context.
    let bind =
        unsafe { maps::socket(socket.cast(), false) }.and_then(|state| Bind::of(state)).filter(|_| !socket.is_null());
    // SAFETY: a field of the socket of a live context.
    let bind = bind.map(|bind| (bind, unsafe { (&raw const (*socket).bound_dev_if).read_volatile() }));
    proxymatic_ebpf::on_listen(&Maps, Port::new(port as u16), bind);
}
