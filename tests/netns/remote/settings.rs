//! Settings of a service apply to remote clients as they do to local sockets.

use std::io::ErrorKind;

use anyhow::{Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{CLIENT, PATIENCE};
use serde_json::json;

use super::client::{asked, greeted, refused, socket, who};
use super::{FOR_TWO, ONE_ARMED, ROUTED, Remote, WAYS, at, both, exposed, open_is};
use crate::fixtures::cluster::PORT;
use crate::fixtures::file_source::FileSource;

/// A second service.
const OTHER: u16 = 1235;

#[test]
fn drained_backend_gets_no_new_flow_and_keeps_its_flows() -> TestResult {
    for way in WAYS {
        let lab = way.lab()?;
        let remote = Remote::start(&lab, way)?;
        let transfers = remote.transfers(FOR_TWO)?;
        assert!(transfers.of('a') > 0 && transfers.of('b') > 0, "one backend has all");
        for place in remote.echoes[0].places {
            lab.proxymatic(&["backend", "drain", &place.to_string()])?.well()?;
        }
        // Not at once for all: one client in 500,000 draws only drained slots, until the agent has removed those slots.
        eventually_ok("it gets no new flow", PATIENCE, || remote.answers_come_from("b"))?;
        transfers.go_on("ab", 20)?;
        for place in remote.echoes[0].places {
            lab.proxymatic(&["backend", "undrain", &place.to_string()])?.well()?;
        }
        // The command waits for the agent for a limited time.
        eventually_ok("it gets new flows again", PATIENCE, || remote.answers_come_from("ab"))?;
        transfers.finish("ab")?;
    }
    Ok(())
}

#[test]
fn remote_refusal_ejects_and_costs_two_clients_at_most() -> TestResult {
    for way in [ROUTED, ONE_ARMED] {
        let lab = way.lab()?;
        let mut remote = Remote::start(&lab, way)?;
        remote.echoes[0].process.kill9()?;
        for to in way.service_addresses() {
            let served = (0..40).filter(|_| who(lab.host(CLIENT), to).is_ok()).count();
            // After the first failure it is ejected for a second, then for two.
            assert!(served >= 37, "{served} of 40 to {to} are served");
        }
        let services = lab.host(1).services()?;
        let failed: u64 = services.iter().flat_map(|service| &service.backends).map(|backend| backend.failed).sum();
        assert!((2..=6).contains(&failed), "{failed} failed");
        remote.echoes[0] = lab.host(2).echo(7001, 'a')?;
        eventually_ok("it is back", PATIENCE, || remote.answers_come_from("ab"))?;
    }
    Ok(())
}

#[test]
fn allow_list_checks_the_remote_client_address() -> TestResult {
    for way in [ROUTED, ONE_ARMED] {
        let lab = way.lab()?;
        let remote = Remote::start(&lab, way)?;
        let [four, six] = lab.host(CLIENT).addresses_on(way.arms.outside());
        remote.written.rewrite(&both(&remote.echoes, &[("allow", json!([format!("{four}/32"), "192.0.2.0/24"]))]))?;
        let [to4, to6] = way.service_addresses();
        // The agent writes the lists of the services one after the other.
        eventually_ok("the other family is refused", PATIENCE, || {
            ensure!(refused(lab.host(CLIENT), to6)? == ErrorKind::ConnectionRefused);
            let datagram = asked(&socket(lab.host(CLIENT), to6)?).map_err(|error| error.kind());
            ensure!(datagram == Err(ErrorKind::ConnectionRefused), "{datagram:?}");
            Ok(())
        })?;
        who(lab.host(CLIENT), to4)?;
        asked(&socket(lab.host(CLIENT), to4)?)?;
        assert!(lab.host(1).verdict("not_allowed")? >= 2);
        remote.written.rewrite(&both(&remote.echoes, &[("allow", json!([format!("{six}/64")]))]))?;
        eventually_ok("it is allowed, and the first one no longer", PATIENCE, || {
            who(lab.host(CLIENT), to6)?;
            ensure!(refused(lab.host(CLIENT), to4)? == ErrorKind::ConnectionRefused);
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn remote_maxconn_2_admits_two_and_one_after_a_close() -> TestResult {
    for way in [ROUTED, ONE_ARMED] {
        let lab = way.lab()?;
        let remote = Remote::start(&lab, way)?;
        let [to, _] = way.service_addresses();
        let limited = |n: usize| json!({ "address": remote.echoes[n].places[0].ip(), "port": 7001, "maxconn": 2 });
        // By roundrobin each backend has one slot, so that a client always finds the one with room. The table of another
        // policy is too large to be searched to its end.
        let backends = [limited(0), limited(1)];
        let service =
            json!({ "name": "tcp", "port": PORT, "expose": true, "policy": "roundrobin", "backends": backends });
        remote.written.rewrite(&[service])?;
        let client = lab.host(CLIENT);
        eventually_ok("the limit is there", PATIENCE, || {
            let web = lab.host(1).service("tcp")?;
            ensure!(web.backends.iter().all(|it| it.maxconn == Some(2)), "{web:?}");
            Ok(())
        })?;
        let mut held = (0..4).map(|_| greeted(client, to)).collect::<Result<Vec<_>>>()?;
        assert_eq!(refused(client, to)?, ErrorKind::ConnectionRefused, "{way:?}: the fifth");
        assert!(lab.host(1).verdict("backends_full")? >= 1);
        held.pop();
        open_is(&lab, 3)?;
        held.push(greeted(client, to)?);
        drop(held);
        open_is(&lab, 0)?;
    }
    Ok(())
}

#[test]
fn service_not_exposed_is_reached_from_this_host_only() -> TestResult {
    for way in WAYS {
        let lab = way.lab()?;
        let echo = lab.host(2).echo(7001, 'a')?;
        let open = exposed("open", "tcp", PORT, &echo.places, &[]);
        let shut = ["tcp", "udp"].map(|it| exposed(it, it, OTHER, &echo.places, &[("expose", json!(false))]));
        let _agent = way.serve(&lab, &[open, shut.concat()].concat())?;
        for to in way.arms.service_addresses() {
            assert_eq!(who(lab.host(CLIENT), at(to, PORT))?, 'a', "{way:?}");
            assert_eq!(refused(lab.host(CLIENT), at(to, OTHER))?, ErrorKind::ConnectionRefused, "{way:?}");
            let error = asked(&socket(lab.host(CLIENT), at(to, OTHER))?).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{way:?}");
        }
        let greeting = ["-c", "head --bytes 1 < /dev/tcp/127.0.0.1/1235"];
        let said = lab.host(1).run("bash".as_ref(), &greeting, PATIENCE)?;
        assert_eq!(said.stdout, "a", "{way:?}: {said:?}");
    }
    Ok(())
}

#[test]
fn agent_without_interface_forwards_nothing() -> TestResult {
    let lab = ONE_ARMED.lab()?;
    let echo = lab.host(2).echo(7001, 'a')?;
    let service = exposed("tcp", "tcp", PORT, &echo.places, &[]);
    let _agent = FileSource::start(&lab, &service, &[])?;
    for to in ONE_ARMED.service_addresses() {
        assert_eq!(refused(lab.host(CLIENT), to)?, ErrorKind::ConnectionRefused);
    }
    Ok(())
}
