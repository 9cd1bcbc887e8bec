//! Any history of desired states, with plans that stop anywhere. Each service is served after every write, the plan of the
//! changes equals the whole plan, and the last plan leaves neither writes nor garbage.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxymatic_fuzz::history::{History, carry_out};

fuzz_target!(|history: History| carry_out(&history));
