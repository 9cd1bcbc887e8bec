//! `--bpf-log`: the hooks log their verdicts; without the option the programs contain no log code.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapInfo;
use aya::programs::ProgramInfo;
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};
use proxymatic_user::dataplane::kernel::{HOOKS, Pins};
use serde_json::json;

use crate::fixtures::cluster::{Cluster, SERVICE};

/// A service without any backend.
const IDLE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1235);

/// For each hook, the size of its instructions in the kernel, in bytes, and whether it has a log map.
fn programs(lab: &Lab) -> Result<BTreeMap<&'static str, (u32, bool)>> {
    let pins = Pins::at(&lab.host(1).pins());
    let program = |hook: &&'static str| {
        let info = ProgramInfo::from_pin(pins.program(hook))?;
        let maps = info.map_ids()?.context("no maps")?;
        let names = maps.iter().map(|id| Ok(MapInfo::from_id(*id)?.name_as_str().map(str::to_owned)));
        let names = names.collect::<Result<Vec<_>>>()?;
        let size = info.size_translated().context("no size")?;
        Ok((*hook, (size, names.iter().flatten().any(|name| name == "AYA_LOGS"))))
    };
    HOOKS.iter().map(program).collect()
}

fn logs(cluster: &Cluster<'_>, words: &str) -> Result<()> {
    eventually_ok(&format!("the agent logs {words:?}"), PATIENCE, || {
        let log = cluster.agent.stderr()?;
        ensure!(log.lines().any(|line| line.contains(" hook: 127.0.0.1 port ") && line.ends_with(words)), "{log}");
        Ok(())
    })
}

#[test]
fn bpf_log_option_logs_refusals_and_default_has_no_log_code() -> TestResult {
    let lab = Lab::start(2)?;
    let mut cluster = Cluster::on(&lab, lab.sim()?, 1, json!({}), &["--bpf-log"])?;
    cluster.when_active(&[0])?;
    cluster.sim.app("/idle", IDLE.port(), &[])?;
    lab.service_when("/idle is known", "/idle", |idle| idle.backends.is_empty())?;
    let mut client = lab.host(1).tcp_client()?;
    assert_eq!(client.hold("served", 1, SERVICE)?, ["ok"]);
    assert_eq!(client.hold("refused", 1, IDLE)?, ["ECONNREFUSED"]);
    logs(&cluster, " refused, no_backend")?;
    assert!(!cluster.agent.stderr()?.contains("translated"), "{}", cluster.agent.log());
    let loud = programs(&lab)?;

    cluster.agent.terminate(PATIENCE)?;
    cluster.agent = lab.agent(&["--bpf-log", "--verbose"])?;
    lab.host(1).agent_ready(PATIENCE)?;
    assert_eq!(client.hold("again", 1, SERVICE)?, ["ok"]);
    logs(&cluster, " backend 0 translated")?;

    cluster.agent.terminate(PATIENCE)?;
    cluster.start_agent()?;
    assert_eq!(client.hold("refused", 1, IDLE)?, ["ECONNREFUSED"]);
    assert!(!cluster.agent.stderr()?.contains("hook: "), "{}", cluster.agent.log());
    for (hook, (plain, to_log)) in programs(&lab)? {
        let (size, logs) = loud[hook];
        println!("{hook}: {plain} bytes, {size} with its log");
        let connects = hook.starts_with("connect") || hook.starts_with("sendmsg");
        assert!(!to_log, "{hook} has the log's map");
        assert!(logs == connects && (size > plain) == connects && size >= plain, "{hook}: {plain} and {size}");
    }
    Ok(())
}
