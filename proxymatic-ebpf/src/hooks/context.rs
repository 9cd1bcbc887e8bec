//! The fields of the kernel's contexts, read and written in the one width that the verifier takes.
//!
//! The verifier rewrites accesses to a context and takes them only in the width that is declared: volatile keeps LLVM
//! from merging or widening them.

use core::{ffi::c_void, mem};

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr, bpf_sock_tuple},
    programs::SockAddrContext,
};
use proxymatic_common::{Address, Families, PROTOCOL_TCP, PROTOCOL_UDP, Port};
use proxymatic_ebpf::Flow;

/// How the addresses of a socket's family lie in a context.
pub(crate) trait Family {
    /// The address that the context is about.
    fn address(fields: *mut bpf_sock_addr) -> Address;
    /// Puts another in its place.
    fn set_address(fields: *mut bpf_sock_addr, address: Address);
    /// The address that a socket is bound to.
    fn bound(socket: *mut bpf_sock) -> Address;
    /// What a socket can be connected to.
    const CONNECTS: Families;
    /// A loopback address, of a port of which nobody listens.
    const CLOSED: Address;
}

/// Sockets, or datagrams, of IPv4.
pub(crate) struct V4;
/// Sockets of IPv6, also where they speak IPv4 by v4-mapped addresses.
pub(crate) struct V6;

impl Family for V4 {
    const CONNECTS: Families = Families::V4;
    const CLOSED: Address = Address::from_v4_word(0x7f00_0001_u32.to_be());

    #[inline(always)]
    fn address(fields: *mut bpf_sock_addr) -> Address {
        // SAFETY: a field of the live context.
        Address::from_v4_word(unsafe { (&raw const (*fields).user_ip4).read_volatile() })
    }

    #[inline(always)]
    fn set_address(fields: *mut bpf_sock_addr, address: Address) {
        // SAFETY: a field of the live context, which these hooks may write.
        unsafe { (&raw mut (*fields).user_ip4).write_volatile(address.v4_word()) }
    }

    #[inline(always)]
    fn bound(socket: *mut bpf_sock) -> Address {
        // SAFETY: a field of the socket of a live context.
        Address::from_v4_word(unsafe { (&raw const (*socket).src_ip4).read_volatile() })
    }
}

impl Family for V6 {
    // An IPv6 socket reaches IPv4 too. One that was told not to (IPV6_V6ONLY, which no hook can see) gets ENETUNREACH
    // where the backend is of IPv4.
    const CONNECTS: Families = Families::BOTH;
    const CLOSED: Address = Address::from_v6_words([0, 0, 0, 1_u32.to_be()]);

    #[inline(always)]
    fn address(fields: *mut bpf_sock_addr) -> Address {
        // SAFETY: fields of the live context.
        unsafe { words((&raw const (*fields).user_ip6).cast()) }
    }

    #[inline(always)]
    fn set_address(fields: *mut bpf_sock_addr, address: Address) {
        let [a, b, c, d] = address.v6_words();
        // SAFETY: fields of the live context, which these hooks may write.
        unsafe {
            let word = (&raw mut (*fields).user_ip6).cast::<u32>();
            word.write_volatile(a);
            word.add(1).write_volatile(b);
            word.add(2).write_volatile(c);
            word.add(3).write_volatile(d);
        }
    }

    #[inline(always)]
    fn bound(socket: *mut bpf_sock) -> Address {
        // SAFETY: fields of the socket of a live context.
        unsafe { words((&raw const (*socket).src_ip6).cast()) }
    }
}

/// # Safety
/// `word` must be the first of four words of a context.
#[inline(always)]
unsafe fn words(word: *const u32) -> Address {
    // SAFETY: as the caller promises.
    unsafe {
        Address::from_v6_words([
            word.read_volatile(),
            word.add(1).read_volatile(),
            word.add(2).read_volatile(),
            word.add(3).read_volatile(),
        ])
    }
}

/// What is dialled, where it is TCP or UDP.
#[inline(always)]
pub(crate) fn flow<F: Family>(context: &SockAddrContext, families: Families) -> Option<Flow> {
    let fields = context.sock_addr;
    // SAFETY: a field of the live context.
    let protocol = unsafe { (&raw const (*fields).protocol).read_volatile() };
    if protocol != u32::from(PROTOCOL_TCP) && protocol != u32::from(PROTOCOL_UDP) {
        return None;
    }
    let (address, port) = destination::<F>(context);
    Some(Flow::new(address, port, protocol as u8, families))
}

/// The address and port that a context is about.
#[inline(always)]
pub(crate) fn destination<F: Family>(context: &SockAddrContext) -> (Address, Port) {
    let fields = context.sock_addr;
    // SAFETY: a field of the live context.
    let port = unsafe { (&raw const (*fields).user_port).read_volatile() };
    (F::address(fields), Port::from_word(port as u16))
}

/// Puts others in their place.
#[inline(always)]
pub(crate) fn set_destination<F: Family>(context: &SockAddrContext, address: Address, port: Port) {
    let fields = context.sock_addr;
    F::set_address(fields, address);
    // SAFETY: a field of the live context, which these hooks may write.
    unsafe { (&raw mut (*fields).user_port).write_volatile(u32::from(port.word())) }
}

/// The socket of a context.
#[inline(always)]
pub(crate) fn socket_of(context: &SockAddrContext) -> *mut bpf_sock {
    // SAFETY: a field of the live context.
    unsafe { (*context.sock_addr).__bindgen_anon_1.sk }
}

/// What sk_lookup is asked: who would get a packet for an address and port. Gives its length too.
#[inline(always)]
pub(crate) fn tuple(address: &Address, port: Port) -> (bpf_sock_tuple, u32) {
    // SAFETY: integers, of which zero is a value.
    let mut tuple: bpf_sock_tuple = unsafe { mem::zeroed() };
    if address.is_v4() {
        tuple.__bindgen_anon_1.ipv4.daddr = address.v4_word();
        tuple.__bindgen_anon_1.ipv4.dport = port.word();
        return (tuple, 12);
    }
    tuple.__bindgen_anon_1.ipv6.daddr = address.v6_words();
    tuple.__bindgen_anon_1.ipv6.dport = port.word();
    (tuple, 36)
}

/// The context, as helpers want it.
#[inline(always)]
pub(crate) fn raw(context: &SockAddrContext) -> *mut c_void {
    context.sock_addr.cast()
}
