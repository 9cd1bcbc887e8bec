//! Packets of clients on other machines, one by one: what comes out of the very programs (BPF_PROG_TEST_RUN).

mod ends;
mod errors;
mod forwards;
mod fragments;
mod local;
pub(crate) mod room;
mod spec;
mod xdp;
