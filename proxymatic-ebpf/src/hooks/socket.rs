//! The hooks on system calls with a socket.

use core::{ffi::c_void, marker::PhantomData};

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock,
    helpers::generated as helper,
    programs::{SockAddrContext, SockContext},
};
use proxymatic_common::{Families, PROTOCOL_TCP, PROTOCOL_UDP, Port, Reason};
use proxymatic_ebpf::{Choice, Flow, Tables as _, Verdict};

use super::{
    context::{Family, destination, flow, raw, set_destination, socket_of},
    log,
    process_caller::LocalProcess,
};
use crate::maps::{self, Maps};

/// The system call continues with the address in the context.
const CONTINUE: i32 = 1;
/// The system call fails.
const FAIL: i32 = 0;
/// The error of a connect to a port without a listener.
const ECONNREFUSED: i32 = 111;
/// The error of a connect that the allow list forbids.
const EACCES: i32 = 13;
/// The port of tcpmux, which has no listener.
const CLOSED: Port = Port::new(1);
/// SOL_TCP and TCP_SYNCNT.
const SOL_TCP: i32 = 6;
const TCP_SYNCNT: i32 = 7;

/// connect(2): connects the socket to a backend, or refuses.
#[inline(always)]
pub(crate) fn connect<F: Family>(context: &SockAddrContext) -> i32 {
    let Some(flow) = flow::<F>(context, F::CONNECTS) else { return CONTINUE };
    translate::<F, true>(context, &flow)
}

/// sendmsg(2) of a datagram on a socket that is not connected: as connect(2), but the socket keeps its backends.
///
/// A datagram to a v4-mapped address runs the IPv4 hook, whatever its socket. An IPv6 datagram cannot be sent to an
/// IPv4 address: the kernel returns ENOTSUPP.
#[inline(always)]
pub(crate) fn send<F: Family>(context: &SockAddrContext, families: Families) -> i32 {
    let Some(flow) = flow::<F>(context, families) else { return CONTINUE };
    // Before the lookup of the socket's storage: nearly every datagram of a host is to no service.
    if flow.protocol != PROTOCOL_UDP || !proxymatic_ebpf::may_be_service(&Maps, &flow) {
        return CONTINUE;
    }
    // SAFETY: the socket pointer of this hook's own context.
    if let Some(socket) = unsafe { maps::socket(socket_of(context).cast(), false) }
        && let Some((address, port)) = proxymatic_ebpf::cached_udp_backend(&Maps, socket, &flow)
    {
        Maps.count(Reason::UdpCached);
        set_destination::<F>(context, address, port);
        return CONTINUE;
    }
    translate::<F, false>(context, &flow)
}

#[inline(always)]
fn translate<F: Family, const CONNECTS: bool>(context: &SockAddrContext, flow: &Flow) -> i32 {
    let caller = LocalProcess::<F> { context: raw(context), socket: socket_of(context), family: PhantomData };
    match proxymatic_ebpf::route(&Maps, &caller, flow) {
        Verdict::Pass => CONTINUE,
        Verdict::Leave(reason) => {
            log::left(flow, reason);
            Maps.count(reason);
            CONTINUE
        }
        Verdict::Refuse(service, reason) => {
            log::refused(flow, service, reason);
            proxymatic_ebpf::on_refused(&Maps, &caller, flow, service, reason);
            refuse::<F>(context, reason)
        }
        Verdict::Translate(choice) => {
            log::sent(flow, &choice);
            Maps.count(choice.reason);
            record::<CONNECTS>(context, flow, &choice);
            proxymatic_ebpf::on_sampled_connect(&Maps, &caller, flow, &choice);
            set_destination::<F>(context, choice.address, choice.port);
            CONTINUE
        }
    }
}

/// Records a translation in the socket's storage. Without memory the connection goes on: it matters more than its peer
/// name.
#[inline(always)]
fn record<const CONNECTS: bool>(context: &SockAddrContext, flow: &Flow, choice: &Choice) {
    let mut socket = socket_of(context).cast();
    // At compile time too: old kernels have no setsockopt for sendmsg hooks.
    if CONNECTS && flow.protocol == PROTOCOL_TCP {
        if choice.syn_retries != 0 {
            limit_syn_retries(context, choice.syn_retries);
        }
        // SAFETY: the socket pointer of this hook's own context.
        socket = unsafe { maps::mptcp_parent(socket) };
    }
    // SAFETY: the same.
    match unsafe { maps::socket(socket, true) } {
        Some(socket) if CONNECTS => proxymatic_ebpf::on_connect(&Maps, socket, flow, choice),
        Some(socket) => proxymatic_ebpf::on_udp_send(&Maps, socket, flow, choice),
        None => Maps.count(Reason::NoSocketState),
    }
}

/// recvmsg(2): returns the original destination as the sender.
#[inline(always)]
pub(crate) fn receive<F: Family>(context: &SockAddrContext) -> i32 {
    peername::<F>(context)
}

/// getpeername(2): returns the original destination as the peer.
#[inline(always)]
pub(crate) fn peername<F: Family>(context: &SockAddrContext) -> i32 {
    // SAFETY: the socket pointer of this hook's own context.
    if let Some(socket) = unsafe { maps::socket(socket_of(context).cast(), false) } {
        let (address, port) = destination::<F>(context);
        if let Some((original, original_port)) = proxymatic_ebpf::original_destination(socket, &address, port) {
            Maps.count(Reason::ReverseTranslated);
            set_destination::<F>(context, original, original_port);
        }
    }
    CONTINUE
}

/// The last close of a socket: counts its connections as closed.
#[inline(always)]
pub(crate) fn release(context: &SockContext) -> i32 {
    // SAFETY: in this hook the context is the socket.
    if let Some(socket) = unsafe { maps::socket(context.as_ptr(), false) } {
        proxymatic_ebpf::on_release(&Maps, socket);
    }
    CONTINUE
}

/// After bind(2): reports a service port.
#[inline(always)]
pub(crate) fn bind<F: Family>(context: &SockContext) -> i32 {
    let socket: *mut bpf_sock = context.as_ptr().cast();
    // SAFETY: fields of the live context, which in this hook is the socket.
    let (protocol, port) =
        unsafe { ((&raw const (*socket).protocol).read_volatile(), (&raw const (*socket).src_port).read_volatile()) };
    let caller = LocalProcess::<F> { context: context.as_ptr(), socket, family: PhantomData };
    proxymatic_ebpf::on_bind(&Maps, &caller, F::bound(socket), Port::new(port as u16), protocol as u8);
    CONTINUE
}

/// Refuses a flow. Never with EPERM, the default of a failing hook: kernel NFS clients retry in a busy loop on EPERM.
#[inline(always)]
fn refuse<F: Family>(context: &SockAddrContext, reason: Reason) -> i32 {
    if maps::has_retval() {
        // SAFETY: helper calls with constants, as kernels from 7.2 on require; no memory involved.
        unsafe {
            if reason as u32 == Reason::NotAllowed as u32 || reason as u32 == Reason::UnknownNetns as u32 {
                helper::bpf_set_retval(-EACCES);
            } else {
                helper::bpf_set_retval(-ECONNREFUSED);
            }
        }
        return FAIL;
    }
    set_destination::<F>(context, F::CLOSED, CLOSED);
    CONTINUE
}

/// Limits the retransmits of a SYN. If setsockopt fails, the system's limit stays.
#[inline(always)]
fn limit_syn_retries(context: &SockAddrContext, retries: u32) {
    let mut retries = retries;
    let value: *mut c_void = (&raw mut retries).cast();
    // SAFETY: the context is the one the kernel gave this program, the value lives on the stack.
    unsafe { helper::bpf_setsockopt(raw(context), SOL_TCP, TCP_SYNCNT, value, size_of::<u32>() as i32) };
}
