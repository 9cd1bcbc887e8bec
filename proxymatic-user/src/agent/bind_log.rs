//! The log line for a program that binds a service port. Pure.

use std::net::{IpAddr, SocketAddr};

use proxymatic_common::{Event, EventKind, PROTOCOL_TCP};

/// Describes what a bind means for connections to the port. `local_wins` is whether a listener keeps its port.
pub(super) fn describe(service: &str, event: &Event, local_wins: bool) -> String {
    let Event { pid, destination_port, protocol, .. } = event;
    let (port, protocol) = (destination_port.get(), if *protocol == PROTOCOL_TCP { "tcp" } else { "udp" });
    if event.kind == EventKind::BIND_REFUSED {
        return format!(
            "{service}: process {pid} may not bind service port {port}/{protocol} and got an error: --local-listener is \
             root-wins; run the process as root, or give it or the service another port"
        );
    }
    let bound = format!("{service}: process {pid} has bound service port {port}/{protocol}");
    if !local_wins {
        return format!("{bound}: connections to the port go to the service, because --local-listener is service-wins");
    }
    let address = IpAddr::from(event.destination).to_canonical();
    let at = SocketAddr::new(address, port);
    let clients =
        if address.is_loopback() { "programs of the host" } else { "the host, its containers and other machines" };
    let once = if protocol == "tcp" { ", once it listens" } else { "" };
    format!("{bound}: connections of {clients} to {at} go to that process{once}, not to the service")
}

#[cfg(test)]
mod tests {
    use proxymatic_common::{PROTOCOL_UDP, Port};

    use super::*;

    fn event(address: &str, kind: EventKind, protocol: u8) -> Event {
        Event {
            kind,
            pid: 77,
            destination: address.parse::<IpAddr>().unwrap().into(),
            destination_port: Port::new(53),
            protocol,
            ..Event::EMPTY
        }
    }

    #[test]
    fn bind_is_described_by_the_clients_that_it_affects() {
        let said = |address, protocol, wins| describe("dns", &event(address, EventKind::BOUND, protocol), wins);
        assert_eq!(
            said("127.0.0.53", PROTOCOL_TCP, true),
            "dns: process 77 has bound service port 53/tcp: connections of programs of the host to 127.0.0.53:53 go to that \
             process, once it listens, not to the service"
        );
        assert_eq!(
            said("::", PROTOCOL_UDP, true),
            "dns: process 77 has bound service port 53/udp: connections of the host, its containers and other machines to \
             [::]:53 go to that process, not to the service"
        );
        assert!(said("0.0.0.0", PROTOCOL_UDP, false).contains("go to the service"));
    }

    #[test]
    fn refused_bind_names_flag_and_remedy() {
        let said = describe("dns", &event("127.0.0.1", EventKind::BIND_REFUSED, PROTOCOL_UDP), true);
        assert!(
            said.contains("53/udp") && said.contains("root-wins") && said.contains("run the process as root"),
            "{said}"
        );
    }
}
