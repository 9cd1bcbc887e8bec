//! The hooks on system calls with a socket.

use core::{ffi::c_void, marker::PhantomData};

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock,
    helpers::generated as helper,
    programs::{SockAddrContext, SockContext},
};
use proxymatic_common::{Address, Families, PROTOCOL_TCP, PROTOCOL_UDP, Port, Reason};
use proxymatic_ebpf::{Bind, BindVerdict, Choice, Flow, Tables as _, Verdict};

use super::{
    context::{Family, V4, destination, flow, raw, set_destination, socket_of},
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
/// The error of a bind to a port that another program has.
const EADDRINUSE: i32 = 98;
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
        && let Some(cached) = proxymatic_ebpf::cached_udp_backend(&Maps, socket, &flow)
    {
        // A local socket that has got the port since comes before the socket's earlier datagrams.
        if cached.may_have_listener
            && let Some(reason) = proxymatic_ebpf::bypass_cached(&Maps, &caller::<F, false>(context), &flow)
        {
            log::left(&flow, reason);
            Maps.count(reason);
            return CONTINUE;
        }
        Maps.count(Reason::UdpCached);
        set_destination::<F>(context, cached.address, cached.port);
        return CONTINUE;
    }
    translate::<F, false>(context, &flow)
}

#[inline(always)]
fn translate<F: Family, const CONNECTS: bool>(context: &SockAddrContext, flow: &Flow) -> i32 {
    let caller = caller::<F, CONNECTS>(context);
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

/// Returns the process that connects or sends. Only sendmsg hooks can read the source of a datagram.
#[inline(always)]
fn caller<F: Family, const CONNECTS: bool>(context: &SockAddrContext) -> LocalProcess<F> {
    let socket = socket_of(context);
    let source = if !CONNECTS {
        F::message_source(context.sock_addr)
    } else if socket.is_null() {
        Address::ZERO
    } else {
        F::bound(socket)
    };
    LocalProcess { context: raw(context), socket, source, family: PhantomData }
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

/// recvmsg(2): returns the original destination as the sender. Records a sender that is no backend.
#[inline(always)]
pub(crate) fn receive<F: Family>(context: &SockAddrContext) -> i32 {
    if !reverse::<F>(context) {
        let (address, port) = destination::<F>(context);
        let caller = LocalProcess::<F> {
            context: raw(context),
            socket: socket_of(context),
            source: Address::ZERO,
            family: PhantomData,
        };
        proxymatic_ebpf::on_direct_datagram(&Maps, &caller, &address, port);
    }
    CONTINUE
}

/// getpeername(2): returns the original destination as the peer.
#[inline(always)]
pub(crate) fn peername<F: Family>(context: &SockAddrContext) -> i32 {
    reverse::<F>(context);
    CONTINUE
}

/// Sets the original destination in place of the backend. Returns false if the address is that of no backend.
#[inline(always)]
fn reverse<F: Family>(context: &SockAddrContext) -> bool {
    // SAFETY: the socket pointer of this hook's own context.
    if let Some(socket) = unsafe { maps::socket(socket_of(context).cast(), false) } {
        let (address, port) = destination::<F>(context);
        if let Some((original, original_port)) = proxymatic_ebpf::original_destination(socket, &address, port) {
            Maps.count(Reason::ReverseTranslated);
            set_destination::<F>(context, original, original_port);
            return true;
        }
    }
    false
}

/// The last close of a socket: counts its connections as closed, and tells the agent if a service port is free again.
#[inline(always)]
pub(crate) fn release(context: &SockContext) -> i32 {
    // SAFETY: in this hook the context is the socket.
    if let Some(socket) = unsafe { maps::socket(context.as_ptr(), false) } {
        proxymatic_ebpf::on_release(&Maps, socket);
        if let Some(bind) = Bind::of(socket) {
            let sk: *mut bpf_sock = context.as_ptr().cast();
            // SAFETY: a field of the live context, which in this hook is the socket.
            let ifindex = unsafe { (&raw const (*sk).bound_dev_if).read_volatile() };
            let caller =
                LocalProcess::<V4> { context: context.as_ptr(), socket: sk, source: bind.address, family: PhantomData };
            proxymatic_ebpf::on_unbind(&Maps, &caller, &bind, ifindex);
        }
    }
    CONTINUE
}

/// After bind(2): reports a service port, or refuses it.
#[inline(always)]
pub(crate) fn bind<F: Family>(context: &SockContext) -> i32 {
    let socket: *mut bpf_sock = context.as_ptr().cast();
    // SAFETY: fields of the live context, which in this hook is the socket.
    let (protocol, port) =
        unsafe { ((&raw const (*socket).protocol).read_volatile(), (&raw const (*socket).src_port).read_volatile()) };
    let bind = Bind { address: F::bound(socket), port: Port::new(port as u16), protocol: protocol as u8 };
    let caller = LocalProcess::<F> { context: context.as_ptr(), socket, source: bind.address, family: PhantomData };
    match proxymatic_ebpf::on_bind(&Maps, &caller, &bind) {
        BindVerdict::Other => CONTINUE,
        BindVerdict::OnServicePort => {
            // SAFETY: in this hook the context is the socket.
            if let Some(socket) = unsafe { maps::socket(context.as_ptr(), true) } {
                bind.save(socket);
            }
            CONTINUE
        }
        BindVerdict::Refuse => {
            // Else bind(2) fails with EPERM.
            if maps::has_retval() {
                // SAFETY: a helper call with a constant.
                unsafe { helper::bpf_set_retval(-EADDRINUSE) };
            }
            FAIL
        }
    }
}

/// Refuses a flow. Never with EPERM, the default of a failing hook: kernel NFS clients retry in a busy loop on EPERM.
#[inline(always)]
fn refuse<F: Family>(context: &SockAddrContext, reason: Reason) -> i32 {
    if maps::has_retval() {
        // SAFETY: helper calls with constants, as kernels from 7.2 on require; no memory involved.
        unsafe {
            if reason.denies_access() {
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
