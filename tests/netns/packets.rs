//! Packets of clients on other machines, one by one: what comes out of the very programs (BPF_PROG_TEST_RUN).

mod endpoints;
mod errors;
mod forwards;
mod fragments;
mod local;
mod packet_spec;
pub(crate) mod test_netns;
mod xdp;
