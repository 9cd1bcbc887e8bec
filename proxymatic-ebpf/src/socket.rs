//! What a socket remembers: for its peer name, and for the counts.

use proxymatic_common::{Address, Port, Reason, Socket, Translation};

use crate::{Choice, Flow, Tables};

/// Notes a translation. A second connect on one socket ends the first.
#[inline(always)]
pub fn track<T: Tables>(tables: &T, socket: &mut Socket, flow: &Flow, choice: &Choice) {
    release(tables, socket);
    socket.start = tables.now();
    socket.translation = Translation {
        dialled: flow.address,
        chosen: choice.address,
        dialled_port: flow.port,
        chosen_port: choice.port,
        backend: choice.backend,
        generation: choice.generation,
        counted: 0,
    };
    if let Some(load) = tables.load(choice.backend) {
        tables.add(&load.opened);
        socket.translation.counted = 1;
    }
}

/// Takes a socket's translation out of the count, once.
#[inline(always)]
pub fn release<T: Tables>(tables: &T, socket: &mut Socket) {
    if socket.translation.counted == 0 {
        return;
    }
    socket.translation.counted = 0;
    let id = socket.translation.backend;
    let Some(backend) = tables.backend(id) else { return };
    if backend.generation != socket.translation.generation {
        return tables.count(Reason::StaleClose);
    }
    if let Some(load) = tables.load(id) {
        tables.add(&load.closed);
    }
}

/// What the program dialled, where the peer is the one we chose for this socket. A socket that has since been
/// connected elsewhere has another peer, and keeps it.
#[inline(always)]
pub fn reverse(socket: &Socket, peer: &Address, port: Port) -> Option<(Address, Port)> {
    let made = &socket.translation;
    // A zero port is the zeroed state of a socket that translated nothing: nobody connects to it.
    if made.chosen_port == port && port != Port::new(0) && made.chosen.same(peer) {
        return Some((made.dialled, made.dialled_port));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Verdict,
        fixture::{Fixture, address, flow},
        route,
    };

    const NEW: Socket = Socket {
        start: 0,
        translation: Translation {
            dialled: Address::from_v4_word(0),
            chosen: Address::from_v4_word(0),
            dialled_port: Port::new(0),
            chosen_port: Port::new(0),
            backend: 0,
            generation: 0,
            counted: 0,
        },
    };

    fn connect(tables: &Fixture, socket: &mut Socket) -> Choice {
        let flow = flow("127.0.0.1", 1234);
        let Verdict::Translate(choice) = route(tables, &flow) else { panic!("not translated") };
        track(tables, socket, &flow, &choice);
        choice
    }

    #[test]
    fn a_connection_counts_from_connect_to_release_once() {
        let tables = Fixture::with_weights(&[1]);
        let mut socket = NEW;
        connect(&tables, &mut socket);
        assert_eq!(tables.loads[0].active(), 1);
        release(&tables, &mut socket);
        release(&tables, &mut socket);
        assert_eq!((tables.loads[0].opened.get(), tables.loads[0].closed.get()), (1, 1));
    }

    #[test]
    fn a_second_connect_on_one_socket_ends_the_first() {
        let tables = Fixture::with_weights(&[1, 1]);
        let mut socket = NEW;
        connect(&tables, &mut socket);
        connect(&tables, &mut socket);
        assert_eq!(tables.loads.iter().map(|load| load.active()).sum::<u64>(), 1);
        assert_eq!(tables.loads.iter().map(|load| load.opened.get()).sum::<u64>(), 2);
    }

    #[test]
    fn a_close_after_the_id_has_a_new_owner_is_not_charged_to_it() {
        let mut tables = Fixture::with_weights(&[1]);
        let mut socket = NEW;
        connect(&tables, &mut socket);
        tables.backends[0].generation += 1;
        release(&tables, &mut socket);
        assert_eq!(tables.loads[0].closed.get(), 0);
        assert_eq!(tables.counted(), [(Reason::StaleClose, 1)]);
    }

    #[test]
    fn the_peer_name_is_what_was_dialled_and_only_for_the_peer_we_chose() {
        let tables = Fixture::with_weights(&[1]);
        let mut socket = NEW;
        assert_eq!(reverse(&socket, &address("0.0.0.0"), Port::new(0)), None, "nothing translated yet");
        let choice = connect(&tables, &mut socket);
        assert_eq!(reverse(&socket, &choice.address, choice.port), Some((address("127.0.0.1"), Port::new(1234))));
        assert_eq!(reverse(&socket, &address("10.9.0.77"), choice.port), None);
        assert_eq!(reverse(&socket, &choice.address, Port::new(1)), None);
        release(&tables, &mut socket);
        assert!(reverse(&socket, &choice.address, choice.port).is_some(), "a socket that is closing keeps its peer");
    }
}
