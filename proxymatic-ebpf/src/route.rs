//! From a flow to a verdict.

use proxymatic_common::{Address, Class, Families, Frontend, Loopback, Port, Reason};

use crate::{Tables, select};

/// A connection that a program asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The address dialled.
    pub address: Address,
    /// The port dialled.
    pub port: Port,
    /// IPPROTO number.
    pub protocol: u8,
    /// What the socket can reach.
    pub families: Families,
}

/// A backend that was chosen, copied: the id may get a new owner while this is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its id.
    pub backend: u32,
    /// Its generation.
    pub generation: u32,
    /// Where it listens.
    pub address: Address,
    /// The port it listens on.
    pub port: Port,
    /// How it came to be chosen: translated or drained.
    pub reason: Reason,
}

/// What is to become of a flow.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not ours: untouched and not counted.
    Pass,
    /// Send it there.
    Translate(Choice),
    /// Refuse it, as a host refuses a port where nobody listens.
    Refuse(Reason),
}

/// Decides. A miss anywhere on the way to a service is a pass, without side effects.
#[inline(always)]
pub fn route<T: Tables>(tables: &T, flow: &Flow) -> Verdict {
    let Some(service) = service(tables, flow) else { return Verdict::Pass };
    match select::choose(tables, service, flow.families) {
        Ok(choice) => Verdict::Translate(choice),
        Err(reason) => Verdict::Refuse(reason),
    }
}

#[inline(always)]
fn service<T: Tables>(tables: &T, flow: &Flow) -> Option<u32> {
    let class = classify(tables, &flow.address)?;
    tables.frontend(&Frontend::new(class, flow.port, flow.protocol))
}

/// What an address means to this socket. Loopback is told by the bits, not by a table: it is 2^24 addresses, and what
/// it means depends on the namespace.
#[inline(always)]
fn classify<T: Tables>(tables: &T, address: &Address) -> Option<Class> {
    if !address.is_loopback() {
        return tables.class(address);
    }
    let config = tables.config()?;
    let ours = match config.loopback {
        Loopback::ALL => true,
        Loopback::HOST => tables.netns() == config.host_netns,
        _ => false,
    };
    if ours { Some(Class::HOST) } else { None }
}

#[cfg(test)]
mod tests {
    use proxymatic_common::BackendState;

    use super::*;
    use crate::fixture::{Fixture, address, flow};

    fn chosen(tables: &Fixture, to: &str, port: u16) -> Option<Address> {
        match route(tables, &flow(to, port)) {
            Verdict::Translate(choice) => Some(choice.address),
            Verdict::Pass => None,
            Verdict::Refuse(reason) => panic!("{to}:{port} refused: {}", reason.name()),
        }
    }

    #[test]
    fn a_service_port_on_an_address_of_this_host_leads_to_a_replica() {
        let tables = Fixture::with_weights(&[1]).address("10.0.0.1", Class::HOST);
        assert_eq!(chosen(&tables, "10.0.0.1", 1234), Some(address("10.9.0.0")));
        assert_eq!(chosen(&tables, "10.0.0.2", 1234), None, "another host's address");
        assert_eq!(chosen(&tables, "10.0.0.1", 1235), None, "another port");
        let udp = Flow { protocol: 17, ..flow("10.0.0.1", 1234) };
        assert_eq!(route(&tables, &udp), Verdict::Pass, "another protocol");
        assert_eq!(tables.counted(), [], "a pass is not counted");
    }

    #[test]
    fn an_address_of_another_class_is_another_service() {
        let tables = Fixture::with_weights(&[1]).address("10.99.0.1", Class(2));
        assert_eq!(chosen(&tables, "10.99.0.1", 1234), None);
    }

    #[test]
    fn loopback_leads_to_services_from_the_host_from_everywhere_or_from_nowhere() {
        for (mode, netns, expected) in [
            (Loopback::HOST, 1, true),
            (Loopback::HOST, 2, false),
            (Loopback::ALL, 1, true),
            (Loopback::ALL, 2, true),
            (Loopback::NONE, 1, false),
            (Loopback(77), 1, false),
        ] {
            let mut tables = Fixture::with_weights(&[1]);
            tables.config.loopback = mode;
            tables.netns = netns;
            for own in ["127.0.0.1", "127.8.9.10", "0.0.0.0"] {
                assert_eq!(chosen(&tables, own, 1234).is_some(), expected, "{mode:?} from {netns} to {own}");
            }
        }
    }

    #[test]
    fn a_service_without_backends_is_refused() {
        let tables = Fixture::with_weights(&[]);
        assert_eq!(route(&tables, &flow("127.0.0.1", 1234)), Verdict::Refuse(Reason::NoBackend));
        let mut tables = Fixture::with_weights(&[1]);
        tables.backends[0].state = BackendState::FREE;
        assert_eq!(route(&tables, &flow("127.0.0.1", 1234)), Verdict::Refuse(Reason::NoBackend));
    }
}
