//! Addresses of the host that are added and removed while the agent runs.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};
use proxymatic_tests::net::{host_address, host_address6};
use proxymatic_user::dataplane::kernel::{Maps, Pins};

use crate::fixtures::cluster::{Cluster, PORT};

/// The interface of a host of the lab.
const PORT_DEVICE: &str = "lab0";

#[test]
fn added_address_reaches_the_service_until_it_is_removed() -> TestResult {
    let lab = Lab::start(2)?;
    let _web = Cluster::start(&lab, 1)?;
    let net = lab.host(1).net();
    let mut client = lab.host(1).tcp_client()?;
    for nth in 100..120 {
        let address = Ipv4Addr::new(10, 77, 0, nth);
        let order = format!("connect c{nth} {}", SocketAddr::from((address, PORT)));
        net.ip(&["address", "add", &format!("{address}/32"), "dev", PORT_DEVICE])?;
        // The agent reads the addresses only at its start, so only the kernel's message can cause this.
        eventually_ok(&format!("{address} reaches the service"), PATIENCE, || {
            let said = client.tell(&order)?;
            ensure!(said == "ok", "{said}");
            Ok(())
        })?;
        net.ip(&["address", "delete", &format!("{address}/32"), "dev", PORT_DEVICE])?;
        addresses_are(&lab, &[])?;
    }
    Ok(())
}

#[test]
fn host_addresses_of_both_families_omit_loopback_and_link_local() -> TestResult {
    let lab = Lab::start(2)?;
    let _web = Cluster::start(&lab, 1)?;
    let net = lab.host(1).net();
    for address in ["fd77::100/64", "fe80::100/64", "127.0.0.9/8", "192.0.2.7/32"] {
        net.ip(&["address", "add", address, "dev", PORT_DEVICE, "nodad"][..if address.contains(':') { 6 } else { 5 }])?;
    }
    addresses_are(&lab, &["fd77::100", "192.0.2.7"])?;
    Ok(())
}

#[test]
fn burst_of_added_addresses_is_complete() -> TestResult {
    let lab = Lab::start(2)?;
    let _web = Cluster::start(&lab, 1)?;
    let net = lab.host(1).net();
    let many: Vec<_> = (1..=250).map(|nth| format!("192.0.2.{nth}")).collect();
    for address in &many {
        net.ip(&["address", "add", &format!("{address}/32"), "dev", PORT_DEVICE])?;
    }
    addresses_are(&lab, &many.iter().map(String::as_str).collect::<Vec<_>>())?;
    net.ip(&["address", "flush", "dev", PORT_DEVICE, "to", "192.0.2.0/24"])?;
    addresses_are(&lab, &[])?;
    Ok(())
}

/// Waits until the maps hold exactly these addresses and those that every host of the lab has.
fn addresses_are(lab: &Lab, more: &[&str]) -> Result<()> {
    let maps = Maps::open(&Pins::at(&lab.host(1).pins()))?;
    let mut wanted: BTreeSet<IpAddr> = more.iter().map(|address| Ok(address.parse()?)).collect::<Result<_>>()?;
    wanted.extend([host_address(1).into(), IpAddr::from(host_address6(1))]);
    eventually_ok("the addresses are known", PATIENCE, || {
        let known: BTreeSet<IpAddr> = maps.tables()?.addresses().keys().map(|address| (*address).into()).collect();
        ensure!(known == wanted, "{known:?}, not {wanted:?}");
        Ok(())
    })
}
