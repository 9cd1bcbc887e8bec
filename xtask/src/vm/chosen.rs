//! The netns tests that run in virtual machines, and the time of each there.
//!
//! The chosen tests depend on the kernel: hooks load, attach, see every kind of call and change every kind of socket.
//! Left out are tests with the same result on every kernel (sources, plans, shares of many thousand connections, real
//! programs, the harness), and tests about times, which an emulated machine cannot keep: it is ten times slower.

/// A module of tests, or one test, and its approximate time in seconds on 6.1 (emulated, two processors of 2026). The
/// sum stays near four minutes ([`BUDGET`]).
pub(super) struct Chosen {
    name: &'static str,
    seconds: u32,
}

const fn chosen(name: &'static str, seconds: u32) -> Chosen {
    Chosen { name, seconds }
}

pub(super) const CHOSEN: [Chosen; 9] = [
    chosen("kernel_limits", 20),
    chosen("connect", 60),
    chosen("syscalls", 30),
    chosen("shared_udp_socket", 30),
    chosen("packets::local", 30),
    chosen("packets::xdp", 30),
    // Filters of clsact instead of links, before 6.6.
    chosen("interfaces::hooks_stay_on_the_interface_without_agent_until_detach", 15),
    chosen("interfaces::next_agent_keeps_links_unless_it_has_no_interface", 20),
    chosen("remote_connections::remote_client_is_counted_and_shown_while_connected", 15),
];

/// The subset that runs on the oldest and the newest kernel if no kernel is named, as modules or tests: all hooks load
/// and attach, and forward TCP and UDP both ways. A minute for each kernel.
const FEW: [&str; 3] = [
    "kernel_limits",
    "connect::curl_to_localhost_is_answered_and_its_peer_is_the_service",
    "shared_udp_socket::six_services_on_one_socket_each_reply_from_own_address",
];

/// Which of the tests to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// [`CHOSEN`].
    All,
    /// [`FEW`].
    Few,
}

/// The budget of all tests together, in seconds on 6.1.
const BUDGET: u32 = 250;
const _: () = assert!(total() <= BUDGET, "too much for one virtual machine: choose less");

const fn total() -> u32 {
    let (mut sum, mut nth) = (0, 0);
    while nth < CHOSEN.len() {
        sum += CHOSEN[nth].seconds;
        nth += 1;
    }
    sum
}

/// Whether a test is in this module, or is this test.
fn takes(chosen: &str, test: &str) -> bool {
    test == chosen || test.strip_prefix(chosen).is_some_and(|rest| rest.starts_with("::"))
}

/// Returns the chosen tests, in the order of the choice; or the entries without any test.
pub(super) fn of<'a>(tests: &[&'a str], choice: Choice) -> Result<Vec<&'a str>, Vec<&'static str>> {
    let chosen = match choice {
        Choice::All => CHOSEN.iter().map(|it| it.name).collect(),
        Choice::Few => FEW.to_vec(),
    };
    let (found, stale): (Vec<_>, Vec<_>) =
        chosen.into_iter().partition(|chosen| tests.iter().any(|test| takes(chosen, test)));
    if !stale.is_empty() {
        return Err(stale);
    }
    Ok(found.into_iter().flat_map(|chosen| tests.iter().copied().filter(|test| takes(chosen, test))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_name_matches_no_longer_module_name() {
        assert!(takes("sockets", "sockets::a") && takes("sockets", "sockets"));
        assert!(!takes("sockets", "sockets_gone::a") && !takes("sockets", "x::sockets"));
    }

    #[test]
    fn choice_without_a_test_is_an_error() {
        assert_eq!(of(&["connect::a"], Choice::All).unwrap_err().len(), CHOSEN.len() - 1);
        assert_eq!(of(&["connect::a"], Choice::Few).unwrap_err().len(), FEW.len());
    }

    #[test]
    fn few_are_a_subset_of_the_chosen() {
        assert!(FEW.iter().all(|few| CHOSEN.iter().any(|chosen| takes(chosen.name, few))));
    }
}
