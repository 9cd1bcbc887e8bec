//! Counters match the open connections after any packets in any order.

use proptest::prelude::*;

use super::*;
use crate::conntrack::state::progress;

/// An event on the network of a few clients.
#[derive(Clone, Copy, Debug)]
enum Happens {
    /// The client sends a segment with these flags, with the right acknowledgement or a wrong one.
    Client(u16, &'static str, bool),
    /// The backend sends a segment with these flags.
    Backend(u16, &'static str),
    Second,
}

fn happens() -> impl Strategy<Value = Happens> {
    let client = (0..3_u16, prop::sample::select(std::vec!["S", "A", "A", "FA", "R"]), any::<bool>());
    let backend = (0..3_u16, prop::sample::select(std::vec!["SA", "SA", "A", "FA", "RA"]));
    prop_oneof![
        6 => client.prop_map(|(who, flags, right)| Happens::Client(4000 + who, flags, right)),
        6 => backend.prop_map(|(who, flags)| Happens::Backend(4000 + who, flags)),
        1 => Just(Happens::Second),
    ]
}

proptest! {
    #[test]
    fn counters_match_open_connections_for_any_packets(
        all in prop::collection::vec(happens(), 1..60),
    ) {
        let host = host();
        // The SNAT port of each client.
        let mut snat = std::collections::BTreeMap::new();
        for it in all {
            match it {
                Happens::Client(port, flags, right) => {
                    let ack = if right { 501 } else { 7 };
                    let (action, out) = arrive(&host, segment((CLIENT, port), (HOST, 1234), flags, 10, ack));
                    if action == Action::Forward {
                        snat.insert(port, out.unwrap().from.1);
                    }
                }
                Happens::Backend(client, flags) => {
                    if let Some(port) = snat.get(&client) {
                        let _ = arrive(&host, segment((BACKEND, 8000), (HOST, *port), flags, 500, 11));
                    }
                }
                Happens::Second => host.pass(1.5),
            }
            let halves = host.established.borrow();
            let open = halves.iter().filter(|(_, it)| !it.flags.has(CtFlags::REPLY)).filter(|(_, it)| {
                let other = halves.get(&it.translated.reversed()).map_or(CtProgress::default(), |it| progress(it));
                !progress(it).with(other).has(CtProgress::CLOSED)
            });
            let (opened, closed) = active(&host);
            prop_assert_eq!(open.count() as u64, opened - closed, "after {:?}", it);
            // No two clients have the same SNAT port.
            let mut ports: Vec<_> = halves.iter().filter(|(_, it)| !it.flags.has(CtFlags::REPLY)).map(|(_, it)| it.translated).collect();
            let all = ports.len();
            ports.sort_unstable();
            ports.dedup();
            prop_assert_eq!(ports.len(), all);
        }
    }
}
