//! The hooks: read a flow or packet from the kernel's context, and carry out the verdict. They decide nothing.

mod context;
mod icmp;
mod log;
mod process_caller;
mod skb;
mod sock_ops;
mod socket;
mod tc;
mod xdp;

pub(crate) use context::{V4, V6};
pub(crate) use sock_ops::on_tcp_event;
pub(crate) use socket::{bind, connect, peername, receive, release, send};
pub(crate) use tc::{egress, ingress};
pub(crate) use xdp::xdp_ingress;
