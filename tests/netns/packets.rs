//! The packet programs, one packet at a time (BPF_PROG_TEST_RUN): packets of remote clients, and what the programs make
//! of them.

mod endpoints;
mod errors;
mod forwards;
mod fragments;
mod local;
mod packet_spec;
pub(crate) mod test_netns;
mod xdp;
