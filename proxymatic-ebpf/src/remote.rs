//! A client on another machine, as far as its packet tells.

use proxymatic_common::{Address, Client, Policy, Port};

use crate::{Caller, Hook, Listener, route::mixed};

/// Who sent a packet.
pub(crate) struct Remote<'a, H> {
    pub(crate) hook: &'a H,
    /// The namespace of the interface, which is the host's.
    pub(crate) netns: u64,
    pub(crate) source: Address,
    pub(crate) source_port: Port,
}

/// It has an address and a port, and none of what a socket on this host has besides.
impl<H: Hook> Caller for Remote<'_, H> {
    #[inline(always)]
    fn netns(&self) -> u64 {
        self.netns
    }
    #[inline(always)]
    fn bound(&self) -> Address {
        self.source
    }
    #[inline(always)]
    fn bound_port(&self) -> u32 {
        u32::from(self.source_port.get())
    }
    #[inline(always)]
    fn mark(&self) -> u32 {
        0
    }
    #[inline(always)]
    fn tgid(&self) -> u32 {
        0
    }
    #[inline(always)]
    fn cgroup(&self) -> u64 {
        0
    }
    #[inline(always)]
    fn ancestor(&self, _: u32) -> u64 {
        0
    }
    #[inline(always)]
    fn listed(&self, _: Option<u32>) -> bool {
        false
    }
    #[inline(always)]
    fn listener(&self, address: &Address, port: Port, protocol: u8) -> Listener {
        self.hook.listener(address, port, protocol)
    }
    #[inline(always)]
    fn client(&self) -> Client {
        let [a, b, c, d] = self.source.v6_words();
        let join = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        Client { cgroup: join(a, b), netns: join(c, d) }
    }
    #[inline(always)]
    fn remote(&self) -> bool {
        true
    }
    /// Consistent hashing, unless the operator wants turns or a client's address to count alone: hosts that forward for the
    /// same clients then come to the same, and no count of a single host tells how loaded a backend is.
    #[inline(always)]
    fn policy(&self, policy: Policy) -> Policy {
        match policy {
            Policy::ROUNDROBIN | Policy::SOURCE => policy,
            _ => Policy::MAGLEV,
        }
    }
    #[inline(always)]
    fn spread(&self) -> u64 {
        let client = self.client();
        mixed(client.cgroup ^ client.netns, u64::from(self.bound_port()))
    }
}
