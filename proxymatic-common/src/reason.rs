//! Every verdict that is not a plain pass, by the one name it has in code, metrics, commands and tests.

use crate::{Cell64, assert_packed};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal),+ $(,)?) => {
        /// Why a hook did what it did. A socket that has nothing to do with us gets no reason and is not counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant),+
        }

        impl Reason {
            /// All of them, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name in metrics, tables and JSON.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// One sentence for people.
            pub const fn describe(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii_start()),+ }
            }
        }
    };
}

reasons! {
    /// Sent to an eligible backend.
    Translated = "translated",
    /// Sent to a draining backend, because the service has no active one.
    Drained = "drained",
    /// Refused: the service has no backend that this socket can reach.
    NoBackend = "no_backend",
    /// Refused: every backend that would do is at its maxconn.
    Full = "full",
    /// Sent to a backend, but the kernel had no memory for the socket's state: not counted as open, and its peer name
    /// shows the backend.
    Untracked = "untracked",
    /// A peer name was given as what the program had dialled.
    Reversed = "reversed",
    /// A slot named a backend whose id has a new owner; another slot was tried.
    StaleSlot = "stale_slot",
    /// A socket closed after its backend's id had been given to another: the close was not counted.
    StaleClose = "stale_close",
}

/// How many reasons have a counter.
pub const REASONS: usize = Reason::ALL.len();

/// One CPU's counters. A row for each possible CPU rather than a per-CPU map, because those cannot be mapped into
/// the agent's memory; 256 bytes, so that no two CPUs share a cache line.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Counters {
    /// By [`Reason`].
    pub of: [Cell64; 32],
}
assert_packed!(Counters = [u64; 32]);
const _: () = assert!(REASONS <= 32, "a reason without a counter");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_a_metric_label() {
        for (i, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
            assert!(reason.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", reason.name());
            assert_eq!(Reason::ALL.iter().filter(|other| other.name() == reason.name()).count(), 1);
        }
        assert_eq!(Reason::Translated.describe(), "Sent to an eligible backend.");
    }
}
