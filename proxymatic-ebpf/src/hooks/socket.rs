//! The hooks on the calls that programs make with a socket.

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

/// The kernel goes on with what is in the context.
const GO_ON: i32 = 1;
/// The kernel fails the call.
const FAIL: i32 = 0;
/// What a program sees that dials a port where nobody listens.
const ECONNREFUSED: i32 = 111;
/// What it sees that may not connect.
const EACCES: i32 = 13;
/// tcpmux: nobody listens there.
const CLOSED: Port = Port::new(1);
/// SOL_TCP and TCP_SYNCNT.
const SOL_TCP: i32 = 6;
const TCP_SYNCNT: i32 = 7;

/// connect(2): sends the socket to a backend, or refuses.
#[inline(always)]
pub(crate) fn connect<F: Family>(context: &SockAddrContext) -> i32 {
    let Some(flow) = flow::<F>(context, F::CONNECTS) else { return GO_ON };
    dial::<F, true>(context, &flow)
}

/// sendmsg(2) of a datagram on a socket that is not connected: as connect, but each socket keeps its backends.
///
/// A datagram to a v4-mapped address comes by as one of IPv4 whatever its socket; one of IPv6 cannot be turned into one
/// of IPv4 (the kernel says ENOTSUPP).
#[inline(always)]
pub(crate) fn send<F: Family>(context: &SockAddrContext, families: Families) -> i32 {
    let Some(flow) = flow::<F>(context, families) else { return GO_ON };
    // Before the socket is asked for its storage: nearly every datagram of a host has to do with no service.
    if flow.protocol != PROTOCOL_UDP || !proxymatic_ebpf::may_be_service(&Maps, &flow) {
        return GO_ON;
    }
    // SAFETY: the socket pointer of this hook's own context.
    if let Some(socket) = unsafe { maps::socket(socket_of(context).cast(), false) }
        && let Some((address, port)) = proxymatic_ebpf::cached_udp_backend(&Maps, socket, &flow)
    {
        Maps.count(Reason::UdpCached);
        set_destination::<F>(context, address, port);
        return GO_ON;
    }
    dial::<F, false>(context, &flow)
}

#[inline(always)]
fn dial<F: Family, const CONNECTS: bool>(context: &SockAddrContext, flow: &Flow) -> i32 {
    let caller = LocalProcess::<F> { context: raw(context), socket: socket_of(context), family: PhantomData };
    match proxymatic_ebpf::route(&Maps, &caller, flow) {
        Verdict::Pass => GO_ON,
        Verdict::Leave(reason) => {
            log::left(flow, reason);
            Maps.count(reason);
            GO_ON
        }
        Verdict::Refuse(service, reason) => {
            log::refused(flow, service, reason);
            proxymatic_ebpf::on_refused(&Maps, &caller, flow, service, reason);
            refuse::<F>(context, reason)
        }
        Verdict::Translate(choice) => {
            log::sent(flow, &choice);
            Maps.count(choice.reason);
            note::<CONNECTS>(context, flow, &choice);
            proxymatic_ebpf::on_sampled_connect(&Maps, &caller, flow, &choice);
            set_destination::<F>(context, choice.address, choice.port);
            GO_ON
        }
    }
}

/// Notes a choice on the socket. Without memory for that the connection matters more than its peer name.
#[inline(always)]
fn note<const CONNECTS: bool>(context: &SockAddrContext, flow: &Flow, choice: &Choice) {
    let mut socket = socket_of(context).cast();
    // Said at compile time too: old kernels have no setsockopt for the hooks of sendmsg.
    if CONNECTS && flow.protocol == PROTOCOL_TCP {
        if choice.syn_retries != 0 {
            bound_connect(context, choice.syn_retries);
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

/// recvmsg(2): shows what was dialled as the sender.
#[inline(always)]
pub(crate) fn receive<F: Family>(context: &SockAddrContext) -> i32 {
    peername::<F>(context)
}

/// getpeername(2): shows what the program dialled.
#[inline(always)]
pub(crate) fn peername<F: Family>(context: &SockAddrContext) -> i32 {
    // SAFETY: the socket pointer of this hook's own context.
    if let Some(socket) = unsafe { maps::socket(socket_of(context).cast(), false) } {
        let (address, port) = destination::<F>(context);
        if let Some((dialled, dialled_port)) = proxymatic_ebpf::original_destination(socket, &address, port) {
            Maps.count(Reason::ReverseTranslated);
            set_destination::<F>(context, dialled, dialled_port);
        }
    }
    GO_ON
}

/// The last close of a socket: what it had open is closed.
#[inline(always)]
pub(crate) fn release(context: &SockContext) -> i32 {
    // SAFETY: in this hook the context is the socket.
    if let Some(socket) = unsafe { maps::socket(context.as_ptr(), false) } {
        proxymatic_ebpf::on_release(&Maps, socket);
    }
    GO_ON
}

/// A port has been bound: said where it is a service port.
#[inline(always)]
pub(crate) fn bind<F: Family>(context: &SockContext) -> i32 {
    let socket: *mut bpf_sock = context.as_ptr().cast();
    // SAFETY: fields of the live context, which in this hook is the socket.
    let (protocol, port) =
        unsafe { ((&raw const (*socket).protocol).read_volatile(), (&raw const (*socket).src_port).read_volatile()) };
    let caller = LocalProcess::<F> { context: context.as_ptr(), socket, family: PhantomData };
    proxymatic_ebpf::on_bind(&Maps, &caller, F::bound(socket), Port::new(port as u16), protocol as u8);
    GO_ON
}

/// Never a bare EPERM, which a failing hook gives by default: kernel NFS clients spin on it.
#[inline(always)]
fn refuse<F: Family>(context: &SockAddrContext, reason: Reason) -> i32 {
    if maps::has_retval() {
        // SAFETY: helper calls with constants, as kernels from 7.2 on want them; no memory involved.
        unsafe {
            if reason as u32 == Reason::NotAllowed as u32 {
                helper::bpf_set_retval(-EACCES);
            } else {
                helper::bpf_set_retval(-ECONNREFUSED);
            }
        }
        return FAIL;
    }
    set_destination::<F>(context, F::CLOSED, CLOSED);
    GO_ON
}

/// Bounds how long an unanswered SYN is tried. May fail, on an odd socket: then the system's bound holds.
#[inline(always)]
fn bound_connect(context: &SockAddrContext, retries: u32) {
    let mut retries = retries;
    let value: *mut c_void = (&raw mut retries).cast();
    // SAFETY: the context is the one the kernel gave this program, the value lives on the stack.
    unsafe { helper::bpf_setsockopt(raw(context), SOL_TCP, TCP_SYNCNT, value, size_of::<u32>() as i32) };
}
