//! The process that owns a socket, and listeners, looked up by helpers.

use core::{ffi::c_void, marker::PhantomData, ptr};

use aya_ebpf::{
    bindings::{BPF_F_CURRENT_NETNS, BPF_TCP_LISTEN, bpf_sock},
    helpers::generated as helper,
};
use proxymatic_common::{Address, PROTOCOL_TCP, PROTOCOL_UDP, Port};
use proxymatic_ebpf::{Caller, Listener, source_towards};

use super::context::{Family, V4, tuple};
use crate::maps::Maps;

/// A process on this host, seen from a hook.
pub(crate) struct LocalProcess<F> {
    /// The hook's context, which some helpers take.
    pub(crate) context: *mut c_void,
    /// The socket; null if the hook has none.
    pub(crate) socket: *mut bpf_sock,
    /// The source address of the flow; an unspecified one if the kernel is to choose it.
    pub(crate) source: Address,
    pub(crate) family: PhantomData<F>,
}

impl<F: Family> Caller for LocalProcess<F> {
    #[inline(always)]
    fn netns(&self) -> u64 {
        // SAFETY: the context is the one the kernel gave this program.
        unsafe { helper::bpf_get_netns_cookie(self.context) }
    }
    #[inline(always)]
    fn bound(&self) -> Address {
        if self.socket.is_null() { Address::ZERO } else { F::bound(self.socket) }
    }
    #[inline(always)]
    fn bound_port(&self) -> u32 {
        if self.socket.is_null() {
            return 0;
        }
        // SAFETY: a field of the socket of a live context.
        unsafe { (&raw const (*self.socket).src_port).read_volatile() }
    }
    #[inline(always)]
    fn mark(&self) -> u32 {
        if self.socket.is_null() {
            return 0;
        }
        // SAFETY: a field of the socket of a live context.
        unsafe { (&raw const (*self.socket).mark).read_volatile() }
    }
    #[inline(always)]
    fn tgid(&self) -> u32 {
        // SAFETY: no arguments.
        unsafe { (helper::bpf_get_current_pid_tgid() >> 32) as u32 }
    }
    #[inline(always)]
    fn uid(&self) -> u32 {
        // SAFETY: no arguments.
        unsafe { helper::bpf_get_current_uid_gid() as u32 }
    }
    #[inline(always)]
    fn cgroup(&self) -> u64 {
        // SAFETY: no arguments.
        unsafe { helper::bpf_get_current_cgroup_id() }
    }
    #[inline(always)]
    fn ancestor(&self, level: u32) -> u64 {
        // SAFETY: a number; the helper returns 0 for a missing level.
        unsafe { helper::bpf_get_current_ancestor_cgroup_id(level as i32) }
    }
    #[inline(always)]
    fn cgroup_listed(&self, service: Option<u32>) -> bool {
        process_cgroup_listed(service.unwrap_or(u32::MAX)) != 0
    }
    #[inline(always)]
    fn listener(&self, address: &Address, port: Port, protocol: u8) -> Listener {
        let own_port = Port::new(self.bound_port() as u16);
        listener(self.context, (source_towards(self.source, address), own_port), (address, port), protocol)
    }
}

/// Returns the listener on an address and port in the network namespace of a hook's context. A UDP socket that is
/// connected to `from` counts as one.
#[inline(always)]
pub(super) fn listener(
    context: *mut c_void,
    from: (Address, Port),
    (address, port): (&Address, Port),
    protocol: u8,
) -> Listener {
    // The TCP lookup would find a connection between both in place of the listener.
    let from = if protocol == PROTOCOL_UDP { from } else { (Address::ZERO, Port::new(0)) };
    let (mut wanted, length) = tuple(from, (address, port));
    let current = BPF_F_CURRENT_NETNS as i64 as u64;
    // SAFETY: the context is the one the kernel gave this program, the tuple lives, and the socket is released.
    unsafe {
        let found = if protocol == PROTOCOL_TCP {
            helper::bpf_sk_lookup_tcp(context, &raw mut wanted, length, current, 0)
        } else {
            helper::bpf_sk_lookup_udp(context, &raw mut wanted, length, current, 0)
        };
        if found.is_null() {
            return Listener::None;
        }
        // The TCP lookup finds connections too, even one from a port to itself.
        let listens = protocol != PROTOCOL_TCP || (*found).state == BPF_TCP_LISTEN;
        let loopback = if address.is_v4() {
            Address::from_v4_word((*found).src_ip4).is_loopback() && (*found).src_ip4 != 0
        } else {
            let bound = Address::from_v6_words((*found).src_ip6);
            bound.is_loopback() && !bound.is_unspecified()
        };
        helper::bpf_sk_release(found.cast());
        match (listens, loopback) {
            (false, _) => Listener::None,
            (true, true) => Listener::Loopback,
            (true, false) => Listener::Other,
        }
    }
}

/// [`proxymatic_ebpf::cgroup_listed`] as a subprogram. `service` is an id, or `u32::MAX` for the excluded cgroups.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn process_cgroup_listed(service: u32) -> u64 {
    // Only the methods about the process are called.
    let caller = LocalProcess::<V4> {
        context: ptr::null_mut(),
        socket: ptr::null_mut(),
        source: Address::ZERO,
        family: PhantomData,
    };
    u64::from(proxymatic_ebpf::cgroup_listed(&Maps, &caller, (service != u32::MAX).then_some(service)))
}
