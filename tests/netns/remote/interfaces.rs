//! Interfaces that go down, come up, are renamed, and are recreated while the agent runs.

use std::net::TcpStream;
use std::time::Duration;

use anyhow::Result;
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{CLIENT, Lab, PATIENCE};

use super::client::WAIT;
use super::{ONE_ARMED, ROUTED, Remote, WAYS};

#[test]
fn flows_survive_an_interface_down_and_up() -> TestResult {
    for way in [ROUTED, ONE_ARMED, WAYS[2]] {
        let lab = way.lab()?;
        let remote = Remote::start(&lab, way)?;
        let transfers = remote.transfers(8)?;
        for interface in way.arms.interfaces() {
            set(&lab, &[&interface, "down"])?;
            // Not longer, or connections need as long to notice that the path is back.
            let soon = || TcpStream::connect_timeout(&way.service_addresses()[0], Duration::from_millis(300));
            assert!(lab.host(CLIENT).net().enter(soon)?.is_err(), "{way:?}: served by nothing");
            set(&lab, &[&interface, "up"])?;
            back(&lab, &interface)?;
            transfers.go_on("ab", 10)?;
        }
        remote.answers_come_from("ab")?;
        transfers.finish("ab")?;
    }
    Ok(())
}

#[test]
fn interface_recreated_is_served_and_its_flows_survive() -> TestResult {
    let way = ONE_ARMED;
    let lab = way.lab()?;
    let remote = Remote::start(&lab, way)?;
    let transfers = remote.transfers(8)?;
    for _ in 0..2 {
        lab.host(1).net().ip(&["link", "delete", "lab0"])?;
        lab.join(1, 0)?;
        // One attempt may wait for an answer as long as WAIT.
        eventually_ok("it is served again", WAIT + 2 * PATIENCE, || remote.answers_come_from("ab"))?;
        transfers.go_on("ab", 10)?;
    }
    transfers.finish("ab")?;
    Ok(())
}

#[test]
fn flows_survive_an_interface_rename() -> TestResult {
    for way in WAYS {
        let lab = way.lab()?;
        let remote = Remote::start(&lab, way)?;
        let transfers = remote.transfers(8)?;
        for (old, new) in [("lab0", "lan0"), ("lan0", "lab0")] {
            set(&lab, &[old, "down"])?;
            set(&lab, &[old, "name", new])?;
            set(&lab, &[new, "up"])?;
            back(&lab, new)?;
            transfers.go_on("ab", 10)?;
            remote.answers_come_from("ab")?;
        }
        transfers.finish("ab")?;
    }
    Ok(())
}

fn set(lab: &Lab, what: &[&str]) -> Result<()> {
    lab.host(1).net().ip(&[&["link", "set"], what].concat())
}

/// An interface that goes down loses its IPv6 addresses.
fn back(lab: &Lab, interface: &str) -> Result<()> {
    let [_, six] = lab.host(1).addresses_on(u8::from(interface.ends_with('1')));
    lab.host(1).net().ip(&["address", "replace", &format!("{six}/64"), "dev", interface, "nodad"])
}
