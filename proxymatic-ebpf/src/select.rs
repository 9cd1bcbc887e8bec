//! Which backend of a service: the heart of the matter.

use proxymatic_common::{Families, Policy, Reason};

use crate::{
    Tables,
    look::{Rank, Seen},
    route::mixed,
};

/// How often backends are drawn before they are looked for.
const DRAWS: u32 = 4;
/// How many slots are looked at then. A bounded number, for the verifier and for the latency of connect(2): it finds the
/// few that are left only where few are missing, so the agent takes those out of the slots that are missing for long.
const SCAN: u32 = 16;

/// How a backend is drawn, and which would do. One word, so that it can be handed to a function of its own in eBPF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw(u32);

impl Draw {
    /// `local` asks for backends on this host only.
    #[inline(always)]
    pub const fn new(policy: Policy, families: Families, local: bool) -> Self {
        Self((policy.0 & 0xff) << 8 | (local as u32) << 2 | families.0 as u32)
    }

    /// From the word.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        Self(word)
    }

    /// As a word.
    #[inline(always)]
    pub const fn word(self) -> u32 {
        self.0
    }

    #[inline(always)]
    const fn policy(self) -> u32 {
        self.0 >> 8 & 0xff
    }

    #[inline(always)]
    pub(crate) const fn families(self) -> Families {
        Families((self.0 & 3) as u8)
    }

    #[inline(always)]
    pub(crate) const fn local(self) -> bool {
        self.0 & 4 != 0
    }

    #[inline(always)]
    pub(crate) const fn by_latency(self) -> bool {
        self.policy() == Policy::LATENCY.0
    }

    /// Whether two are drawn and compared.
    #[inline(always)]
    const fn of_two(self) -> bool {
        self.policy() == Policy::LEASTCONN.0 || self.by_latency()
    }
}

/// Draws a backend of a service, or says why there is none. `hash` is for the policies that go by one.
///
/// # Errors
/// Why the flow must be refused.
#[inline(always)]
pub fn select<T: Tables>(tables: &T, service: u32, draw: Draw, hash: u64) -> Result<(u32, Reason), Reason> {
    // One word, read once, so that length and base belong together.
    let head = tables.head(service);
    let length = head.length();
    if length == 0 {
        return Err(Reason::NoBackend);
    }
    let start = first(tables, service, draw, hash, length);
    for attempt in 0..DRAWS {
        let one = step(tables, draw, hash, start, attempt, length);
        let a = tables.look(head.base() + one, draw);
        if !draw.of_two() {
            if a.is(Rank::Eligible) {
                return Ok((a.id(), Reason::Translated));
            }
            continue;
        }
        // Two different slots where there are two: the same one twice would pass its share by the comparison.
        let other = one + 1 + below(tables.random(), length - 1);
        let b = tables.look(head.base() + if other >= length { other - length } else { other }, draw);
        // A tie goes to the first: each is drawn by weight, so the shares are the weights.
        if a.is(Rank::Eligible) && !(b.is(Rank::Eligible) && b.cheaper(a)) {
            return Ok((a.id(), Reason::Translated));
        }
        if b.is(Rank::Eligible) {
            return Ok((b.id(), Reason::Translated));
        }
    }
    let mut best = Seen::from_word(0);
    for n in 0..SCAN {
        if n >= length {
            break;
        }
        let index = start + n;
        let seen = tables.look(head.base() + if index >= length { index - length } else { index }, draw);
        if seen.is(Rank::Eligible) {
            return Ok((seen.id(), Reason::Translated));
        }
        if seen.outranks(best) {
            best = seen;
        }
    }
    if best.is(Rank::Draining) {
        Ok((best.id(), Reason::Drained))
    } else if best.is(Rank::Ejected) {
        Ok((best.id(), Reason::PanicMode))
    } else if best.is(Rank::Full) {
        Err(Reason::BackendsFull)
    } else if draw.local() {
        Err(Reason::BoundLoopback)
    } else {
        Err(Reason::NoBackend)
    }
}

/// Where to begin, which is also where the scan begins.
#[inline(always)]
fn first<T: Tables>(tables: &T, service: u32, draw: Draw, hash: u64, length: u32) -> u32 {
    match Policy(draw.policy()) {
        Policy::ROUNDROBIN => match tables.service_load(service) {
            Some(load) => {
                // Two processors may read the same turn; each then takes the next once more, which evens out.
                let turn = load.turn.get();
                tables.add(&load.turn);
                (turn % u64::from(length)) as u32
            }
            None => 0,
        },
        Policy::SOURCE | Policy::MAGLEV => below(hash as u32, length),
        _ => below(tables.random(), length),
    }
}

/// The slot of an attempt: the next in turn, the next of the hash, or another one drawn.
#[inline(always)]
fn step<T: Tables>(tables: &T, draw: Draw, hash: u64, start: u32, attempt: u32, length: u32) -> u32 {
    if attempt == 0 {
        return start;
    }
    match Policy(draw.policy()) {
        Policy::ROUNDROBIN => {
            let next = start + attempt;
            // Twice at most: attempts are fewer than twice the slots of any service that gets here with two.
            if next >= length { (next - length) % length } else { next }
        }
        Policy::SOURCE | Policy::MAGLEV => below(mixed(hash, u64::from(attempt)) as u32, length),
        _ => below(tables.random(), length),
    }
}

/// A number below `bound` from 32 random bits: a multiplication instead of a division.
#[inline(always)]
pub(crate) fn below(random: u32, bound: u32) -> u32 {
    ((u64::from(random) * u64::from(bound)) >> 32) as u32
}

#[cfg(test)]
mod tests;
