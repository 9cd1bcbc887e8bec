//! Packet hooks on network interfaces: attached to the named interfaces, kept there, removed. Modules `packets` and
//! `remote` test their effect on packets.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};
use aya::programs::ProgramError;
use aya::programs::tc::{SchedClassifier, TcAttachType};
use proxymatic_common::ABI_VERSION;
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Host, Lab, PATIENCE};
use proxymatic_tests::process::Process;
use serde_json::Value;

use crate::bpftool;

/// The interface of a host of the lab.
const PORT: &str = "lab0";
const BOTH: [&str; 2] = ["tc_ingress", "tc_egress"];

/// Starts Marathon with one app, and an agent on host 1 with these arguments; returns when it is ready.
fn agent(lab: &Lab, more: &[&str]) -> Result<Process> {
    let agent = lab.agent(more)?;
    lab.host(1).agent_ready(PATIENCE)?;
    Ok(agent)
}

/// Returns the names of the TC programs that the kernel runs on an interface.
fn on(host: &Host, interface: &str) -> Result<Vec<String>> {
    let by_links = host.net().enter(|| {
        let mut names = Vec::new();
        for kind in [TcAttachType::Ingress, TcAttachType::Egress] {
            let (_, programs) = SchedClassifier::query_tcx(interface, kind)?;
            names.extend(programs.iter().filter_map(|program| program.name_as_str().map(str::to_owned)));
        }
        Ok::<_, ProgramError>(names)
    })?;
    // Before Linux 6.6 there are no TCX links.
    if has_links(host)? { Ok(by_links?) } else { filters(host, interface) }
}

/// Returns the names of the TC filters of an interface.
fn filters(host: &Host, interface: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for way in ["ingress", "egress"] {
        let said =
            host.run(Path::new("tc"), &["-j", "filter", "show", "dev", interface, way], PATIENCE)?.well()?.stdout;
        let rows: Vec<Value> = if said.trim().is_empty() { Vec::new() } else { serde_json::from_str(&said)? };
        let name = |row: &Value| row["options"]["bpf_name"].as_str()?.split('@').next().map(str::to_owned);
        names.extend(rows.iter().filter_map(name));
    }
    Ok(names)
}

fn has_links(host: &Host) -> Result<bool> {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Ok(*known);
    }
    let rows: Vec<Value> = serde_json::from_str(&host.proxymatic(&["-j", "feature", "probe"])?.stdout)?;
    let row = rows.iter().find(|row| row["feature"] == "links to interfaces (tcx)").context("it was not asked for")?;
    Ok(*KNOWN.get_or_init(|| row["has"] == true))
}

/// Waits until these hooks are attached to an interface, pinned and marked: the agent marks last.
fn when_on(host: &Host, interface: &str, wanted: &[&str]) -> TestResult {
    eventually_ok(&format!("{interface} has {wanted:?}"), PATIENCE, || {
        let (names, marked) = (on(host, interface)?, marked(host)?);
        ensure!(names == wanted && marked.contains(&index(host, interface)?), "{names:?}, marked: {marked:?}");
        Ok(())
    })?;
    Ok(())
}

/// Returns the interface hooks that `hook show` prints: link id by hook and interface, 0 for a filter.
fn rows(host: &Host) -> Result<BTreeMap<(String, String), u64>> {
    let rows: Vec<Value> = serde_json::from_str(&host.proxymatic(&["-j", "hook", "show"])?.well()?.stdout)?;
    let row = |row: &Value| {
        let text = |key: &str| row[key].as_str().map(str::to_owned);
        Some(((text("hook")?, text("interface")?), row["link"].as_u64().unwrap_or(0)))
    };
    Ok(rows.iter().filter_map(row).collect())
}

/// Returns the agent's warnings about an interface.
fn warnings(host: &Host, interface: &str) -> Result<Vec<String>> {
    let status: Value = serde_json::from_str(&host.proxymatic(&["-j", "status"])?.stdout)?;
    let all = status["warnings"].as_array().context("no warnings")?;
    let about = all.iter().filter(|it| it["app"] == format!("interface {interface}").as_str());
    Ok(about.filter_map(|it| it["reason"].as_str().map(str::to_owned)).collect())
}

/// Returns the attached hooks in `map dump INTERFACES`, by interface index.
fn marked(host: &Host) -> Result<Vec<u64>> {
    let rows: Vec<Value> =
        serde_json::from_str(&host.proxymatic(&["-j", "map", "dump", "INTERFACES"])?.well()?.stdout)?;
    Ok(rows.iter().filter(|row| row["kind"] == "attached").filter_map(|row| row["interface"].as_u64()).collect())
}

fn index(host: &Host, interface: &str) -> Result<u64> {
    let said = host.run(Path::new("ip"), &["-j", "link", "show", interface], PATIENCE)?.well()?.stdout;
    let rows: Vec<Value> = serde_json::from_str(&said)?;
    rows[0]["ifindex"].as_u64().context("no number")
}

#[test]
fn agent_without_interface_option_attaches_no_packet_hook() -> TestResult {
    let lab = Lab::start(1)?;
    let _sim = lab.sim()?;
    let _agent = agent(&lab, &[])?;
    let host = lab.host(1);
    assert_eq!(on(host, PORT)?, Vec::<String>::new());
    assert_eq!((rows(host)?, marked(host)?), (BTreeMap::new(), Vec::new()));
    let maps: Vec<Value> = serde_json::from_str(&host.proxymatic(&["-j", "map", "show"])?.well()?.stdout)?;
    let entries = |name: &str| maps.iter().find(|map| map["map"] == name).and_then(|map| map["entries"].as_u64());
    assert_eq!(["CONNTRACK", "CT_HALF_OPEN", "FRAGMENTS"].map(entries), [Some(1); 3]);
    Ok(())
}

#[test]
fn hooks_stay_on_the_interface_without_agent_until_detach() -> TestResult {
    let lab = Lab::start(1)?;
    let _sim = lab.sim()?;
    let mut agent = agent(&lab, &["--interface", PORT])?;
    let host = lab.host(1);
    when_on(host, PORT, &BOTH)?;
    let names: Vec<_> = rows(host)?.into_keys().collect();
    assert_eq!(names, [("tc_egress".into(), PORT.into()), ("tc_ingress".into(), PORT.into())]);
    assert_eq!(marked(host)?, [index(host, PORT)?]);
    assert!(host.proxymatic(&["status"])?.stdout.contains("tc_ingress@lab0"));
    agent.kill9()?;
    assert_eq!(on(host, PORT)?, BOTH);
    host.proxymatic(&["detach"])?.well()?;
    assert_eq!(on(host, PORT)?, Vec::<String>::new());
    assert!(!host.pins().exists());
    Ok(())
}

#[test]
fn next_agent_keeps_links_unless_it_has_no_interface() -> TestResult {
    let lab = Lab::start(1)?;
    let _sim = lab.sim()?;
    let host = lab.host(1);
    let mut first = agent(&lab, &["--interface", PORT])?;
    when_on(host, PORT, &BOTH)?;
    let links = rows(host)?;
    first.kill9()?;
    let mut second = agent(&lab, &["--interface", PORT, "--expose"])?;
    when_on(host, PORT, &BOTH)?;
    assert_eq!(rows(host)?, links);
    second.kill9()?;
    let _third = agent(&lab, &[])?;
    assert_eq!(on(host, PORT)?, Vec::<String>::new());
    assert_eq!(rows(host)?, BTreeMap::new());
    Ok(())
}

#[test]
fn interface_down_up_or_renamed_keeps_its_hooks() -> TestResult {
    let lab = Lab::start(1)?;
    let _sim = lab.sim()?;
    let host = lab.host(1);
    let mut first = agent(&lab, &["--interface", PORT])?;
    when_on(host, PORT, &BOTH)?;
    let links = rows(host)?;
    for state in ["down", "up"] {
        host.net().ip(&["link", "set", PORT, state])?;
        assert_eq!(on(host, PORT)?, BOTH);
    }
    host.net().ip(&["link", "set", PORT, "down"])?;
    host.net().ip(&["link", "set", PORT, "name", "lan0"])?;
    host.net().ip(&["link", "set", "lan0", "up"])?;
    // A later change, which the agent handles after the rename.
    host.net().ip(&["link", "add", "seen0", "type", "bridge"])?;
    let seen = index(host, "seen0")?;
    eventually_ok("the bridge has been seen", PATIENCE, || {
        let said = host.proxymatic(&["-j", "map", "dump", "INTERFACES"])?.well()?.stdout;
        let rows: Vec<Value> = serde_json::from_str(&said)?;
        ensure!(rows.iter().any(|row| row["interface"] == seen && row["kind"] == "containers"), "{rows:?}");
        Ok(())
    })?;
    assert_eq!(on(host, "lan0")?, BOTH);
    first.kill9()?;
    let _second = agent(&lab, &["--interface", PORT])?;
    when_on(host, "lan0", &BOTH)?;
    assert_eq!(rows(host)?, links);
    assert_eq!(warnings(host, PORT)?, Vec::<String>::new());
    Ok(())
}

#[test]
fn interface_removed_is_reported_and_hooked_when_recreated() -> TestResult {
    let lab = Lab::start(1)?;
    let _sim = lab.sim()?;
    let host = lab.host(1);
    // A pin's name can have no dots.
    let (name, add) = ("ext0.7", ["link", "add", "ext0.7", "type", "veth", "peer", "name", "far0"]);
    let _agent = agent(&lab, &["--interface", name])?;
    let missed = || {
        eventually_ok("it is missed", PATIENCE, || {
            let said = warnings(host, name)?;
            ensure!(said.len() == 1 && said[0].starts_with("there is no such interface: "), "{said:?}");
            Ok(())
        })
    };
    missed()?;
    for _ in 0..3 {
        host.net().ip(&add)?;
        when_on(host, name, &BOTH)?;
        eventually_ok("it is not missed", PATIENCE, || {
            ensure!(warnings(host, name)?.is_empty() && marked(host)? == [index(host, name)?]);
            Ok(())
        })?;
        host.net().ip(&["link", "delete", name])?;
        missed()?;
        assert_eq!(marked(host)?, Vec::<u64>::new());
    }
    Ok(())
}

#[test]
fn hooks_detached_from_outside_are_attached_again() -> TestResult {
    let lab = Lab::start(1)?;
    let _sim = lab.sim()?;
    let host = lab.host(1);
    let _agent = agent(&lab, &["--interface", PORT])?;
    when_on(host, PORT, &BOTH)?;
    for link in rows(host)?.into_values() {
        if link == 0 {
            host.run(Path::new("tc"), &["qdisc", "delete", "dev", PORT, "clsact"], PATIENCE)?;
        } else {
            bpftool::detach(link)?;
        }
    }
    when_on(host, PORT, &BOTH)
}

#[test]
fn links_are_taken_over_by_another_build_and_abi_version() -> TestResult {
    let lab = Lab::start(1)?;
    let _sim = lab.sim()?;
    let host = lab.host(1);
    let mut first = agent(&lab, &["--interface", PORT])?;
    when_on(host, PORT, &BOTH)?;
    let links = rows(host)?;
    first.kill9()?;
    let arguments = ["--marathon", &lab.marathon_url(), "--interface", PORT];
    let mut other = host.agent_built("proxymatic-other-build", host.cgroup(), &arguments)?;
    host.agent_ready(PATIENCE)?;
    assert_eq!(rows(host)?, links);
    other.kill9()?;
    let mut next = host.agent_built("proxymatic-next-abi", host.cgroup(), &arguments)?;
    let pin = host.pins().join(format!("v{}/links/tc_ingress@{PORT}", ABI_VERSION + 1));
    eventually_ok("the next version has the link", PATIENCE, || {
        ensure!(pin.exists());
        Ok(())
    })?;
    assert_eq!(on(host, PORT)?, BOTH, "each packet is seen by one version");
    next.kill9()?;
    let _last = agent(&lab, &["--interface", PORT])?;
    eventually_ok("this version has the links again", PATIENCE, || {
        let now = rows(host)?;
        ensure!(now == links, "{now:?}");
        Ok(())
    })?;
    assert_eq!(on(host, PORT)?, BOTH);
    Ok(())
}

#[test]
fn xdp_runs_in_the_driver_and_keeps_a_foreign_program() -> TestResult {
    let lab = Lab::start(2)?;
    let _sim = lab.sim()?;
    let host = lab.host(1);
    let arguments = ["--interface", PORT, "--xdp", "native"];
    let mut first = agent(&lab, &arguments)?;
    let xdp = |host: &Host| -> Result<Option<u64>> {
        let said = host.run(Path::new("ip"), &["-j", "link", "show", PORT], PATIENCE)?.well()?.stdout;
        let rows: Vec<Value> = serde_json::from_str(&said)?;
        Ok(rows[0]["xdp"]["prog"]["id"].as_u64())
    };
    let program = eventually_ok("the XDP program is there", PATIENCE, || xdp(host)?.context("none"))?;
    // The agent pins a link after it has attached it.
    eventually_ok("the XDP hook is shown", PATIENCE, || {
        ensure!(rows(host)?.len() == 3);
        Ok(())
    })?;
    first.kill9()?;
    // No foreign program is on the interface, so the next agent starts and keeps the link.
    let links = rows(host)?;
    let mut second = agent(&lab, &arguments)?;
    eventually_ok("the program is the new one", PATIENCE, || {
        ensure!(xdp(host)?.is_some_and(|now| now != program));
        Ok(())
    })?;
    assert_eq!(rows(host)?, links);
    second.kill9()?;
    let theirs = host.pins().join(format!("v{ABI_VERSION}/programs/xdp_ingress")).display().to_string();
    let attach = ["net", "attach", "xdp", "pinned", &theirs, "dev", PORT];
    lab.host(2).run(Path::new("bpftool"), &attach, PATIENCE)?.well()?;
    let theirs = xdp(lab.host(2))?.context("bpftool attached nothing")?;
    let mut refused = lab.agent_on(2, &arguments)?;
    assert_eq!(refused.wait(PATIENCE)?.code(), Some(2));
    let said = refused.stderr()?;
    assert!(said.contains(&format!("interface {PORT} already has an XDP program, {theirs}; find its owner")), "{said}");
    assert_eq!(xdp(lab.host(2))?, Some(theirs));
    // Without XDP nothing prevents the start, and the failed attempt has left nothing.
    assert!(!lab.host(2).pins().join(format!("v{ABI_VERSION}/links/connect4")).exists());
    let _third = lab.agent_on(2, &arguments[..2])?;
    when_on(lab.host(2), PORT, &BOTH)?;
    Ok(())
}
