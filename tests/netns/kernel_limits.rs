//! Features of this kernel, and the verifier's budget: recorded as facts for docs/kernels.md.

use anyhow::Context as _;
use aya::programs::ProgramInfo;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, kernel};
use proxymatic_tests::skip::{fact, skipped};
use proxymatic_user::dataplane::kernel::{HOOKS, Pins};

use crate::fixtures::cluster::Cluster;
use crate::packets::test_netns::{PROGRAMS, load};

/// A tenth of the kernel's limit, so that the output of another compiler stays below the limit too.
const BUDGET: u32 = 100_000;

#[test]
fn socket_programs_use_under_a_tenth_of_the_verifier_budget() -> TestResult {
    fact("network namespaces are told apart (SO_NETNS_COOKIE)", if kernel::tells_netns() { "yes" } else { "no" });
    let lab = Lab::start(2)?;
    let _web = Cluster::start(&lab, 1)?;
    let pins = Pins::at(&lab.host(1).pins());
    let mut took = Vec::new();
    for hook in HOOKS {
        let info = ProgramInfo::from_pin(pins.program(hook)).with_context(|| hook)?;
        if let Some(count) = info.verified_instruction_count() {
            fact(&format!("verified {hook}"), &count.to_string());
            took.push((hook, count));
        }
    }
    within_budget(&took, HOOKS.len())
}

#[test]
fn packet_programs_use_under_a_tenth_of_the_verifier_budget() -> TestResult {
    let ebpf = load()?;
    let mut took = Vec::new();
    for name in PROGRAMS {
        let info = ebpf.program(name).context(name)?.info()?;
        if let Some(count) = info.verified_instruction_count() {
            fact(&format!("verified {name}"), &count.to_string());
            took.push((name, count));
        }
    }
    within_budget(&took, PROGRAMS.len())
}

fn within_budget(took: &[(&str, u32)], programs: usize) -> TestResult {
    if took.is_empty() {
        skipped("instructions verified", "this kernel does not tell (5.16)")?;
        return Ok(());
    }
    assert_eq!(took.len(), programs, "{took:?}");
    assert!(took.iter().all(|(_, count)| *count <= BUDGET), "{took:?}");
    Ok(())
}
