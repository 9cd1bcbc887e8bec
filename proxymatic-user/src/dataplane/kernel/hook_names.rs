//! The names of the hooks, in attach order: reverse hooks before forward hooks.

/// The hooks of sockets, in attach order.
pub const HOOKS: [&str; 12] = [
    "sock_release",
    "tcp_states",
    "getpeername4",
    "getpeername6",
    "recvmsg4",
    "recvmsg6",
    "post_bind4",
    "post_bind6",
    "sendmsg4",
    "sendmsg6",
    "connect4",
    "connect6",
];

/// The hooks of an interface, in attach order.
pub const PACKET_HOOKS: [&str; 3] = ["tc_egress", "tc_ingress", XDP_INGRESS];

/// The only hook of an interface that is not a TC hook.
pub(super) const XDP_INGRESS: &str = "xdp_ingress";

/// Returns true if open connections depend on a hook of sockets: it shows the original destination, or it counts
/// closed connections. Every other hook is a forward hook, which affects new connections only.
pub(super) fn is_reverse_hook(hook: &str) -> bool {
    ["sock_release", "tcp_states", "getpeername", "getsockname", "recvmsg"].iter().any(|name| hook.starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_hooks_come_before_forward_hooks() {
        let reverse: Vec<_> = HOOKS.iter().map(|hook| is_reverse_hook(hook)).collect();
        assert!(reverse.is_sorted_by(|a, b| a >= b), "{reverse:?}");
        assert_eq!(reverse.iter().filter(|it| **it).count(), 6);
    }
}
