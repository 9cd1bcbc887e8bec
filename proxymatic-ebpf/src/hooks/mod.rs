//! From the kernel's context to a flow, from a verdict to what the kernel wants. No decisions.

mod caller;
mod context;
mod log;
mod packets;
mod socket;
mod stream;

pub(crate) use context::{V4, V6};
pub(crate) use packets::{Scratch, accelerate, arrive, depart};
pub(crate) use socket::{bind, connect, peername, receive, release, send};
pub(crate) use stream::transition;
