//! Which tests of the netns tier run inside virtual machines, and what each costs there.
//!
//! What is chosen asks something of the kernel: that hooks load, attach, see every kind of call and change every kind of
//! socket. Left out is what would say the same on every kernel: sources, plans, shares of many thousand connections,
//! real programs, the harness; and what is about times, which a machine that is translated cannot keep: where
//! instructions are translated all is ten times slower than elsewhere.

/// A module of tests, or one test of one, and about how many seconds it takes on 6.1 (translated, two processors of
/// 2026). All of them together are to stay near four minutes ([`BUDGET`]).
pub(super) struct Chosen {
    name: &'static str,
    seconds: u32,
}

const fn chosen(name: &'static str, seconds: u32) -> Chosen {
    Chosen { name, seconds }
}

pub(super) const CHOSEN: [Chosen; 9] = [
    chosen("kernel", 20),
    chosen("connect", 60),
    chosen("calls", 30),
    chosen("in_flight", 30),
    chosen("packets::local", 30),
    chosen("packets::xdp", 30),
    // Filters of clsact instead of links, before 6.6.
    chosen("interfaces::hooks_are_on_the_interface_that_is_named_while_the_agent_is_dead_and_until_detach", 15),
    chosen("interfaces::the_next_agent_keeps_the_links_and_one_without_an_interface_takes_them_away", 20),
    chosen("interfaces_served::a_client_on_another_host_is_counted_and_shown_while_its_connection_is_open", 15),
];

/// Seconds that all of them may take together, on 6.1.
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

impl Chosen {
    /// Whether a test is of this module, or is this test.
    pub(super) fn takes(&self, test: &str) -> bool {
        test == self.name || test.strip_prefix(self.name).is_some_and(|rest| rest.starts_with("::"))
    }
}

/// The chosen ones of all tests there are, in the order of [`CHOSEN`]; or the choices that no test is of.
pub(super) fn of<'a>(tests: &[&'a str]) -> Result<Vec<&'a str>, Vec<&'static str>> {
    let stale: Vec<_> = CHOSEN.iter().filter(|it| !tests.iter().any(|test| it.takes(test))).map(|it| it.name).collect();
    if !stale.is_empty() {
        return Err(stale);
    }
    Ok(CHOSEN.iter().flat_map(|it| tests.iter().copied().filter(|test| it.takes(test))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_not_another_that_begins_like_it() {
        let it = chosen("sockets", 1);
        assert!(it.takes("sockets::a") && it.takes("sockets"));
        assert!(!it.takes("sockets_gone::a") && !it.takes("x::sockets"));
    }

    #[test]
    fn a_choice_that_no_test_is_of_is_told() {
        assert_eq!(of(&["connect::a"]).unwrap_err().len(), CHOSEN.len() - 1);
    }
}
