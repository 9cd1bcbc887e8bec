//! Backends on host 1 itself, and clients on the host of a backend.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use proxymatic_tests::failure::TestResult;

use super::client::{asked, socket, who};
use super::{FOR_TWO, Remote, WAYS, at, open_is};
use proxymatic_tests::lab::CLIENT;

#[test]
fn local_backend_answers_beside_one_on_another_host() -> TestResult {
    for way in WAYS {
        let lab = way.lab()?;
        let remote = Remote::of(&lab, way, vec![lab.host(1).echo(7001, 'a')?, lab.host(2).echo(7001, 'b')?])?;
        remote.answers_come_from("ab").with_context(|| format!("{way:?}"))?;
        for to in way.service_addresses() {
            let ask = |_| Ok(asked(&socket(lab.host(CLIENT), to)?)?);
            let seen =
                (0..FOR_TWO).map(ask).collect::<Result<BTreeSet<_>>>().with_context(|| format!("{way:?} {to}"))?;
            assert_eq!(seen, BTreeSet::from(['a', 'b']), "{way:?} {to}");
        }
        let transfers = remote.transfers(8)?;
        transfers.go_on("ab", 20)?;
        transfers.finish("ab")?;
    }
    Ok(())
}

#[test]
fn client_on_a_backend_host_is_served_by_that_backend_too() -> TestResult {
    for way in WAYS {
        let lab = way.lab()?;
        let remote = Remote::start(&lab, way)?;
        // Host 2 connects to host 1, which may send it back to itself.
        for to in lab.host(1).addresses_on(0).map(|address| at(address, crate::fixtures::cluster::PORT)) {
            let seen: BTreeSet<_> = (0..FOR_TWO).map(|_| who(lab.host(2), to)).collect::<Result<_>>()?;
            assert_eq!(seen, BTreeSet::from(['a', 'b']), "{way:?} {to}");
            let ask = |_| Ok(asked(&socket(lab.host(2), to)?)?);
            let seen =
                (0..FOR_TWO).map(ask).collect::<Result<BTreeSet<_>>>().with_context(|| format!("{way:?} {to}"))?;
            assert_eq!(seen, BTreeSet::from(['a', 'b']), "{way:?} {to}");
        }
        drop(remote);
    }
    Ok(())
}

#[test]
fn local_clients_are_served_and_not_translated_twice() -> TestResult {
    for way in WAYS {
        let lab = way.lab()?;
        let remote = Remote::start(&lab, way)?;
        let mut client = lab.host(1).tcp_client()?;
        for nth in 0..10 {
            assert_eq!(
                client.tell(&format!("connect c{nth} 127.0.0.1:{}", crate::fixtures::cluster::PORT))?,
                "ok",
                "{way:?}"
            );
        }
        open_is(&lab, 10)?;
        drop(client);
        open_is(&lab, 0)?;
        drop(remote);
    }
    Ok(())
}
