//! Wrong counts of open connections are corrected from the sockets themselves.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::Lab;
use proxymatic_user::dataplane::kernel::{Maps, Pins};

use crate::fixtures::cluster::{Cluster, SERVICE};

#[test]
fn wrong_count_of_connections_is_corrected_and_right_one_left() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 3)?;
    let mut client = lab.host(1).tcp_client()?;
    assert_eq!(client.hold("c", 6, SERVICE)?, ["ok"; 6]);
    web.agent.kill9()?;
    let maps = Maps::open(&Pins::at(&lab.host(1).pins()))?;
    let tables = maps.tables()?;
    let ids: Vec<_> = tables.backends().keys().copied().collect();
    let active = || ids.iter().map(|id| maps.load(*id).map_or(0, |load| load.active())).collect::<Vec<_>>();
    let right = active();
    assert!(right.iter().sum::<u64>() == 6, "{right:?}");
    let service = *tables.services().keys().next().context("no service")?;
    let load = |nth: usize| maps.load(ids[nth]).context("no such backend");
    load(0)?.opened.add(5);
    load(1)?.closed.add(1);
    maps.service_load(service).context("no such service")?.opened.add(4);
    assert!(active() != right);
    web.start_agent()?;
    eventually_ok("the counts are right", Duration::from_secs(90), || {
        let service = maps.service_load(service).map_or(0, |load| load.active());
        ensure!(active() == right && service == 6, "{:?} and {service}, not {right:?} and 6", active());
        Ok(())
    })?;
    let log = web.agent.log();
    assert_eq!(log.matches("off, and is corrected").count(), 2, "{log}");
    Ok(())
}
