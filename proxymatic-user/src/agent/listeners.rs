//! When the agent has listeners looked for, and of which services it says then that nobody listens on their ports. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use proxymatic_common::{Frontend, Port};

use crate::{dataplane::ListenerSeq, plan::MapOp};

/// How often at least: what closes is not told, nor what programs outside of the cgroup that is served do.
const EVERY: Duration = Duration::from_secs(10);
/// How often at most.
const SOON: Duration = Duration::from_secs(1);

/// A service on the host's own addresses, as it was before anybody looked for listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListenerCheck {
    /// Where it is found.
    pub(super) frontend: Frontend,
    /// What was known of who listens on its port.
    pub(super) hearing: ListenerSeq,
}

/// When to look, and what was known before.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    at: Option<Instant>,
    last: Option<Instant>,
    asked: BTreeMap<u32, ListenerCheck>,
}

impl Listeners {
    /// Somebody has bound a port, or nobody knows yet.
    pub(super) fn soon(&mut self, now: Instant) {
        let soon = self.last.map_or(now, |last| now.max(last + SOON));
        self.at = Some(self.at.map_or(soon, |at| at.min(soon)));
    }

    /// Notes the services that are new when these writes have been carried out. What was seen for their ids before was
    /// seen for others.
    pub(super) fn added(&mut self, ops: &[MapOp], now: Instant) {
        for op in ops {
            if let MapOp::ResetServiceLoad(id) = op {
                self.asked.remove(id);
                self.soon(now);
            }
        }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.at.is_none_or(|at| at <= now)
    }

    /// Notes what is known now, before somebody looks. False where there is nobody to look for.
    pub(super) fn begin(&mut self, services: BTreeMap<u32, ListenerCheck>, now: Instant) -> bool {
        self.asked = services;
        self.at = Some(now + EVERY);
        self.last = Some(now);
        !self.asked.is_empty()
    }

    /// Whether somebody looks just now.
    pub(super) fn is_under_way(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Takes the ports that somebody listens on, if all were seen. Gives what [`ListenerSeq::unheard`] is to be, by service.
    ///
    /// Somebody who came while others looked has been counted in the meantime, and is not overlooked by that.
    pub(super) fn end(
        &mut self,
        heard: Option<&BTreeSet<(u8, Port)>>,
        is: impl Fn(u32) -> Option<ListenerCheck>,
    ) -> Vec<(u32, u64)> {
        let asked = std::mem::take(&mut self.asked);
        let Some(heard) = heard else { return Vec::new() };
        let verdict = |(id, was): (u32, ListenerCheck)| {
            let ListenerCheck { frontend, hearing } = is(id).filter(|is| is.frontend == was.frontend)?;
            let listened = heard.contains(&(frontend.protocol, frontend.port));
            match listened {
                false => (hearing.unheard != was.hearing.bound).then_some((id, was.hearing.bound)),
                // Nobody counted that one.
                true => (hearing.unheard == hearing.bound).then(|| (id, hearing.bound.wrapping_sub(1))),
            }
        };
        asked.into_iter().filter_map(verdict).collect()
    }
}

#[cfg(test)]
mod tests {
    use proxymatic_common::{Class, PROTOCOL_TCP, PROTOCOL_UDP};

    use super::*;

    const WEB: u32 = 7;

    fn asked(port: u16, protocol: u8, bound: u64, unheard: u64) -> ListenerCheck {
        let frontend = Frontend::new(Class::HOST, Port::new(port), protocol);
        ListenerCheck { frontend, hearing: ListenerSeq { bound, unheard } }
    }

    fn heard(of: &[(u8, u16)]) -> BTreeSet<(u8, Port)> {
        of.iter().map(|(protocol, port)| (*protocol, Port::new(*port))).collect()
    }

    /// What comes of one look at services that are the same after it, or at one that is another then.
    fn look(
        before: &[(u32, ListenerCheck)],
        seen: Option<&[(u8, u16)]>,
        after: &[(u32, ListenerCheck)],
    ) -> Vec<(u32, u64)> {
        let mut listeners = Listeners::default();
        assert!(listeners.begin(before.iter().copied().collect(), Instant::now()));
        let after: BTreeMap<_, _> = after.iter().copied().collect();
        listeners.end(seen.map(heard).as_ref(), |id| after.get(&id).copied())
    }

    #[test]
    fn a_port_that_nobody_listens_on_is_unheard_as_of_before_the_look() {
        let new = [(WEB, asked(1234, PROTOCOL_TCP, 1, 0))];
        assert_eq!(look(&new, Some(&[]), &new), [(WEB, 1)]);
        assert_eq!(look(&new, Some(&[(PROTOCOL_TCP, 1235)]), &new), [(WEB, 1)]);
        assert_eq!(look(&new, Some(&[(PROTOCOL_TCP, 1234)]), &new), []);
        let known = [(WEB, asked(1234, PROTOCOL_TCP, 1, 1))];
        assert_eq!(look(&known, Some(&[]), &known), [], "written once");
    }

    #[test]
    fn whoever_binds_while_others_look_is_not_overlooked() {
        let before = asked(1234, PROTOCOL_TCP, 3, 2);
        let after = asked(1234, PROTOCOL_TCP, 4, 2);
        assert_eq!(look(&[(WEB, before)], Some(&[]), &[(WEB, after)]), [(WEB, 3)], "which is not what bound is now");
    }

    #[test]
    fn where_not_all_namespaces_were_seen_nothing_is_said() {
        let new = [(WEB, asked(1234, PROTOCOL_TCP, 1, 0))];
        assert_eq!(look(&new, None, &new), []);
    }

    #[test]
    fn of_services_on_one_port_each_goes_by_its_own_protocol() {
        let both = [(1, asked(1234, PROTOCOL_TCP, 1, 0)), (2, asked(1234, PROTOCOL_UDP, 5, 0))];
        assert_eq!(look(&both, Some(&[(PROTOCOL_TCP, 1234)]), &both), [(2, 5)]);
        assert_eq!(look(&both, Some(&[(PROTOCOL_UDP, 1234)]), &both), [(1, 1)]);
        assert_eq!(look(&both, Some(&[]), &both), [(1, 1), (2, 5)]);
    }

    #[test]
    fn a_listener_that_nobody_counted_is_heard_from_then_on() {
        for bound in [0, 4] {
            let silent = asked(1234, PROTOCOL_TCP, bound, bound);
            let said = look(&[(WEB, silent)], Some(&[(PROTOCOL_TCP, 1234)]), &[(WEB, silent)]);
            assert!(matches!(said[..], [(WEB, unheard)] if unheard != bound && unheard != bound + 1), "{said:?}");
        }
    }

    #[test]
    fn what_was_seen_for_an_id_is_not_said_of_its_next_owner() {
        let before = asked(1234, PROTOCOL_TCP, 1, 0);
        let new = [(WEB, before)];
        assert_eq!(look(&new, Some(&[]), &[]), []);
        assert_eq!(look(&new, Some(&[]), &[(WEB, asked(1235, PROTOCOL_TCP, 1, 0))]), []);
        // Not even where it has the same port: what was bound between the two was not counted.
        let (mut listeners, now) = (Listeners::default(), Instant::now());
        assert!(listeners.begin(new.into(), now));
        listeners.added(&[MapOp::ResetServiceLoad(WEB)], now);
        assert_eq!(listeners.end(Some(&heard(&[])), |_| Some(before)), []);
    }

    #[test]
    fn it_looks_at_once_then_every_10_s_and_for_a_reason_no_more_than_once_a_second() {
        let (mut listeners, now) = (Listeners::default(), Instant::now());
        let at = |ms| now + Duration::from_millis(ms);
        assert!(listeners.is_due(now));
        let some = BTreeMap::from([(WEB, asked(1234, PROTOCOL_TCP, 1, 0))]);
        assert!(listeners.begin(some.clone(), now));
        assert!(!listeners.is_due(at(9_999)) && listeners.is_due(at(10_000)));
        for ms in [100, 200, 900] {
            listeners.soon(at(ms));
            assert!(!listeners.is_due(at(999)) && listeners.is_due(at(1_000)));
        }
        assert!(listeners.begin(some, at(1_000)));
        listeners.soon(at(5_000));
        assert!(listeners.is_due(at(5_000)));
        assert!(!listeners.begin(BTreeMap::new(), at(5_000)), "nobody to look for");
    }
}
