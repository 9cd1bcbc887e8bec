//! The hooks: read a flow or packet from the kernel's context, and carry out the verdict. They decide nothing.

mod context;
mod icmp;
mod log;
mod packets;
mod process_caller;
mod scratch;
mod sock_ops;
mod socket;
mod tc;
mod xdp;

pub(crate) use context::{V4, V6};
pub(crate) use packets::{egress, ingress, xdp_ingress};
pub(crate) use scratch::Scratch;
pub(crate) use sock_ops::on_tcp_event;
pub(crate) use socket::{bind, connect, peername, receive, release, send};
