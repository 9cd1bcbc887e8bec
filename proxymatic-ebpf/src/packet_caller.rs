//! The client on another machine, identified by its packet.

use proxymatic_common::{Address, Client, Policy, Port};

use crate::{
    data_plane::{Caller, PacketHook},
    hash::hash64,
    types::Listener,
};

/// The sender of a packet.
pub(crate) struct PacketCaller<'a, H> {
    pub(crate) hook: &'a H,
    /// The cookie of the interface's network namespace, which is the host's.
    pub(crate) netns: u64,
    pub(crate) source: Address,
    pub(crate) source_port: Port,
}

/// A remote client has an address and a port, but no process, cgroup or socket mark.
impl<H: PacketHook> Caller for PacketCaller<'_, H> {
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
    fn uid(&self) -> u32 {
        u32::MAX
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
    fn cgroup_listed(&self, _: Option<u32>) -> bool {
        false
    }
    #[inline(always)]
    fn listener(&self, address: &Address, port: Port, protocol: u8) -> Listener {
        self.hook.listener((self.source, self.source_port), (address, port), protocol)
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
    #[inline(always)]
    fn policy(&self, policy: Policy) -> Policy {
        policy.for_remote_clients()
    }
    #[inline(always)]
    fn hash_input(&self) -> u64 {
        let client = self.client();
        hash64(client.cgroup ^ client.netns, u64::from(self.bound_port()))
    }
}
