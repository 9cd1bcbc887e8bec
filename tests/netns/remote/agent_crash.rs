//! The agent crashes and restarts while flows of remote clients go on, and while the table changes.

use anyhow::Result;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{CLIENT, PATIENCE};

use super::client::{asked, socket};
use super::{Remote, WAYS, both, open_is};
use crate::fixtures::file_source::FileSource;

#[test]
fn flows_survive_agent_crash_and_new_ones_are_served() -> TestResult {
    for way in WAYS {
        let lab = way.lab()?;
        let mut remote = Remote::start(&lab, way)?;
        let transfers = remote.transfers(16)?;
        let sockets = way.service_addresses().map(|to| socket(lab.host(CLIENT), to));
        let sockets = sockets.into_iter().collect::<Result<Vec<_>>>()?;
        let first = sockets.iter().map(asked).collect::<Result<Vec<_>, _>>()?;
        for _ in 0..2 {
            remote.written.agent.kill9()?;
            transfers.go_on("ab", 10)?;
            remote.answers_come_from("ab")?;
            assert_eq!(sockets.iter().map(asked).collect::<Result<Vec<_>, _>>()?, first);
            remote.written = again(&remote)?;
            transfers.go_on("ab", 10)?;
            assert_eq!(sockets.iter().map(asked).collect::<Result<Vec<_>, _>>()?, first);
            remote.answers_come_from("ab")?;
        }
        open_is(&lab, 18)?;
        transfers.finish("ab")?;
        open_is(&lab, 2)?;
    }
    Ok(())
}

/// Starts an agent in place of the crashed one.
fn again<'lab>(remote: &Remote<'lab>) -> Result<FileSource<'lab>> {
    remote.way.serve(remote.lab, &both(&remote.echoes, &[]))
}

#[test]
fn remote_clients_without_agent_are_served_until_detach() -> TestResult {
    for way in WAYS {
        let lab = way.lab()?;
        let mut remote = Remote::start(&lab, way)?;
        assert!(remote.written.agent.terminate(PATIENCE)?.success());
        remote.answers_come_from("ab")?;
        lab.proxymatic(&["detach"])?.well()?;
        for to in way.service_addresses() {
            assert_eq!(super::client::refused(lab.host(CLIENT), to)?, std::io::ErrorKind::ConnectionRefused, "{way:?}");
        }
    }
    Ok(())
}
