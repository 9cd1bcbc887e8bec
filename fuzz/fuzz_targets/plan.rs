//! Any history of what is wanted, with plans that stop anywhere: each service is served after every single write, a plan
//! of what has changed is the whole plan, and in the end nothing is left to do and nothing left behind.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxymatic_fuzz::history::{History, carry_out};

fuzz_target!(|history: History| carry_out(&history));
