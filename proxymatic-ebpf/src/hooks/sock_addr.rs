//! The cgroup hooks on sockets, for IPv4.

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock_addr,
    helpers::generated::bpf_set_retval,
    programs::{SockAddrContext, SockContext},
};
use core::ffi::c_void;

use proxymatic_common::{Address, Families, PROTOCOL_TCP, Port, Reason};
use proxymatic_ebpf::{Flow, Tables as _, Verdict};

use crate::maps::{self, Maps};

/// The kernel goes on with what is in the context.
const GO_ON: i32 = 1;
/// The kernel fails the call.
const FAIL: i32 = 0;
/// What a program sees that dials a port where nobody listens.
const ECONNREFUSED: i32 = 111;
/// 127.0.0.1:1 in the words of a socket address: tcpmux, where nobody listens.
const CLOSED: (Address, Port) = (Address::from_v4_word(0x7f00_0001_u32.to_be()), Port::new(1));

/// connect(2): sends the socket to a replica, or refuses.
#[inline(always)]
pub(crate) fn connect(context: &SockAddrContext) -> i32 {
    let maps = Maps { context: context.as_ptr() };
    let protocol = protocol(context);
    if protocol != u32::from(PROTOCOL_TCP) {
        return GO_ON;
    }
    let (address, port) = destination(context);
    let flow = Flow { address, port, protocol: PROTOCOL_TCP, families: Families::V4 };
    match proxymatic_ebpf::route(&maps, &flow) {
        Verdict::Pass => GO_ON,
        Verdict::Refuse(reason) => {
            maps.count(reason);
            refuse(context)
        }
        Verdict::Translate(choice) => {
            maps.count(choice.reason);
            // SAFETY: the socket pointer of this hook's own context.
            match unsafe { maps::socket(socket_of(context), true) } {
                Some(socket) => proxymatic_ebpf::track(&maps, socket, &flow, &choice),
                // The connection matters more than its peer name.
                None => maps.count(Reason::Untracked),
            }
            set_destination(context, choice.address, choice.port);
            GO_ON
        }
    }
}

/// getpeername(2): shows what the program dialled.
#[inline(always)]
pub(crate) fn peername(context: &SockAddrContext) -> i32 {
    let maps = Maps { context: context.as_ptr() };
    let (address, port) = destination(context);
    // SAFETY: the socket pointer of this hook's own context.
    if let Some(socket) = unsafe { maps::socket(socket_of(context), false) }
        && let Some((dialled, dialled_port)) = proxymatic_ebpf::reverse(socket, &address, port)
    {
        maps.count(Reason::Reversed);
        set_destination(context, dialled, dialled_port);
    }
    GO_ON
}

/// The last close of a socket: one connection less.
#[inline(always)]
pub(crate) fn release(context: &SockContext) -> i32 {
    let maps = Maps { context: context.as_ptr() };
    // SAFETY: in this hook the context is the socket.
    if let Some(socket) = unsafe { maps::socket(context.as_ptr(), false) } {
        proxymatic_ebpf::release(&maps, socket);
    }
    GO_ON
}

/// Never a bare EPERM, which a failing hook gives by default: kernel NFS clients spin on it.
#[inline(always)]
fn refuse(context: &SockAddrContext) -> i32 {
    if maps::has_retval() {
        // SAFETY: a helper call with a constant, no memory involved.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
        return FAIL;
    }
    let (address, port) = CLOSED;
    set_destination(context, address, port);
    GO_ON
}

// The verifier rewrites accesses to the context and takes them only in the width that is declared: volatile keeps
// LLVM from merging or widening them.

#[inline(always)]
fn protocol(context: &SockAddrContext) -> u32 {
    // SAFETY: a field of the live context.
    unsafe { (&raw const (*context.sock_addr).protocol).read_volatile() }
}

#[inline(always)]
fn destination(context: &SockAddrContext) -> (Address, Port) {
    let fields: *mut bpf_sock_addr = context.sock_addr;
    // SAFETY: fields of the live context.
    unsafe {
        let address = (&raw const (*fields).user_ip4).read_volatile();
        let port = (&raw const (*fields).user_port).read_volatile();
        (Address::from_v4_word(address), Port::from_word(port as u16))
    }
}

#[inline(always)]
fn set_destination(context: &SockAddrContext, address: Address, port: Port) {
    let fields: *mut bpf_sock_addr = context.sock_addr;
    // SAFETY: fields of the live context, which this hook may write.
    unsafe {
        (&raw mut (*fields).user_ip4).write_volatile(address.v4_word());
        (&raw mut (*fields).user_port).write_volatile(u32::from(port.word()));
    }
}

#[inline(always)]
fn socket_of(context: &SockAddrContext) -> *mut c_void {
    // SAFETY: a field of the live context.
    unsafe { (*context.sock_addr).__bindgen_anon_1.sk.cast() }
}
