//! From the kernel's context to a flow, from a verdict to what the kernel wants. No decisions.

mod sock_addr;

pub(crate) use sock_addr::{connect, peername, release};
