//! The fields of the kernel's contexts.
//!
//! The verifier rewrites accesses to a context, and accepts them only in the declared width. Volatile accesses keep
//! LLVM from merging or widening them.

use core::{ffi::c_void, mem};

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr, bpf_sock_tuple},
    programs::SockAddrContext,
};
use proxymatic_common::{Address, Families, PROTOCOL_TCP, PROTOCOL_UDP, Port};
use proxymatic_ebpf::Flow;

/// The address fields of an address family in a context.
pub(crate) trait Family {
    /// Returns the address in the context.
    fn address(fields: *mut bpf_sock_addr) -> Address;
    /// Sets the address in the context.
    fn set_address(fields: *mut bpf_sock_addr, address: Address);
    /// Returns the address that a socket is bound to.
    fn bound(socket: *mut bpf_sock) -> Address;
    /// Returns the source address of a datagram in the context of a sendmsg hook: the one that the program gave, else
    /// the one that the socket is bound to.
    fn message_source(fields: *mut bpf_sock_addr) -> Address;
    /// The address families that a socket can connect to.
    const CONNECTS: Families;
    /// The loopback address, to which a refused flow is sent if the hook cannot set an error.
    const CLOSED: Address;
}

/// IPv4 sockets and datagrams.
pub(crate) struct V4;
/// IPv6 sockets, including those that use v4-mapped addresses.
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

    #[inline(always)]
    fn message_source(fields: *mut bpf_sock_addr) -> Address {
        // SAFETY: a field of the live context, which sendmsg hooks may read.
        Address::from_v4_word(unsafe { (&raw const (*fields).msg_src_ip4).read_volatile() })
    }
}

impl Family for V6 {
    // An IPv6 socket reaches IPv4 too. A socket with IPV6_V6ONLY, which no hook can read, gets ENETUNREACH if the
    // backend has an IPv4 address.
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

    #[inline(always)]
    fn message_source(fields: *mut bpf_sock_addr) -> Address {
        // SAFETY: fields of the live context, which sendmsg hooks may read.
        unsafe { words((&raw const (*fields).msg_src_ip6).cast()) }
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

/// Returns the flow of a context; `None` if it is neither TCP nor UDP.
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

/// Returns the address and port in a context.
#[inline(always)]
pub(crate) fn destination<F: Family>(context: &SockAddrContext) -> (Address, Port) {
    let fields = context.sock_addr;
    // SAFETY: a field of the live context.
    let port = unsafe { (&raw const (*fields).user_port).read_volatile() };
    (F::address(fields), Port::from_word(port as u16))
}

/// Sets the address and port in a context.
#[inline(always)]
pub(crate) fn set_destination<F: Family>(context: &SockAddrContext, address: Address, port: Port) {
    let fields = context.sock_addr;
    F::set_address(fields, address);
    // SAFETY: a field of the live context, which these hooks may write.
    unsafe { (&raw mut (*fields).user_port).write_volatile(u32::from(port.word())) }
}

/// Returns the socket of a context.
#[inline(always)]
pub(crate) fn socket_of(context: &SockAddrContext) -> *mut bpf_sock {
    // SAFETY: a field of the live context.
    unsafe { (*context.sock_addr).__bindgen_anon_1.sk }
}

/// Returns the tuple by which sk_lookup finds the socket that receives packets between two addresses and ports, and its
/// length.
#[inline(always)]
pub(crate) fn tuple(from: (Address, Port), (address, port): (&Address, Port)) -> (bpf_sock_tuple, u32) {
    // SAFETY: integers, for which zero is valid.
    let mut tuple: bpf_sock_tuple = unsafe { mem::zeroed() };
    if address.is_v4() {
        tuple.__bindgen_anon_1.ipv4.saddr = from.0.v4_word();
        tuple.__bindgen_anon_1.ipv4.sport = from.1.word();
        tuple.__bindgen_anon_1.ipv4.daddr = address.v4_word();
        tuple.__bindgen_anon_1.ipv4.dport = port.word();
        return (tuple, 12);
    }
    tuple.__bindgen_anon_1.ipv6.saddr = from.0.v6_words();
    tuple.__bindgen_anon_1.ipv6.sport = from.1.word();
    tuple.__bindgen_anon_1.ipv6.daddr = address.v6_words();
    tuple.__bindgen_anon_1.ipv6.dport = port.word();
    (tuple, 36)
}

/// Returns the context as helpers take it.
#[inline(always)]
pub(crate) fn raw(context: &SockAddrContext) -> *mut c_void {
    context.sock_addr.cast()
}
