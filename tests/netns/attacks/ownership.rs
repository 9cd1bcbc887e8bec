//! An app claims, retunes or empties the service of another team, and fails. The attacker's id always comes first.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, Service, Sim, SocketProgram, binary};
use proxymatic_tests::process::Process;
use proxymatic_user::state::{decode, encode};
use serde_json::{Value, json};

use super::{EVIL, answers, warned};
use crate::fixtures::cluster::place;
use crate::fixtures::word_replicas::At;

/// The service of team A: Marathon assigned the port.
const WEB: &str = "/team-a/web";
const WEB_AT: At = At::V4(2, 8001);
const PORT: u16 = 10_005;
const SERVICE: &str = "127.0.0.1:10005";
/// The attacker's app.
const ATTACKER: &str = "/a/evil";
const LABEL: &str = "com.meltwater.proxymatic.port.0.";
/// A label of each app of the attacker, and what the agent says of it as soon as it has read the app.
const MARK: ((&str, &str), &str) = (("mode", "http"), "HTTP is not parsed");
/// How often a client connects. A backend with half of the slots is missed by all of them once in a trillion times.
const TIMES: usize = 40;

/// Marathon, an agent on host 1, and the servers of both teams.
struct Teams<'lab> {
    lab: &'lab Lab,
    sim: Sim<'lab>,
    agent: Process,
    client: SocketProgram,
    _servers: [SocketProgram; 2],
}

impl<'lab> Teams<'lab> {
    /// Starts everything, before any app is deployed.
    fn start(lab: &'lab Lab, arguments: &[&str]) -> Result<Self> {
        let servers = [answers(lab, WEB_AT, "web")?, answers(lab, EVIL, "evil")?];
        let (sim, host) = (lab.sim()?, lab.host(1));
        let agent = lab.agent(arguments)?;
        let client = host.program_in(host.cgroup(), &binary("connect-variants")?, &[])?;
        Ok(Self { lab, sim, agent, client, _servers: servers })
    }

    /// Starts everything, and deploys the service of team A.
    fn with_web(lab: &'lab Lab, arguments: &[&str]) -> Result<Self> {
        let mut teams = Self::start(lab, arguments)?;
        teams.deploy_web()?;
        Ok(teams)
    }

    /// Deploys the service of team A, and waits until it gets connections.
    fn deploy_web(&mut self) -> Result<()> {
        let web = app(WEB, json!({ "port": PORT }), json!({}));
        self.sim.control("apps", &json!({ "app": web, "tasks": [place(WEB_AT.address())] }))?;
        self.lab.service_when("team A is served", WEB, |web| web.is_active(WEB_AT.address())).map(drop)
    }

    /// Deploys an app of the attacker, with its task, and waits until the agent has read it.
    fn attack(&self, app: &Value) -> Result<()> {
        self.deploy(app, &json!([place(EVIL.address())]))
    }

    fn deploy(&self, app: &Value, tasks: &Value) -> Result<()> {
        self.sim.control("apps", &json!({ "app": app, "tasks": tasks }))?;
        warned(self.lab, MARK.1)
    }

    /// Asserts that every connection reaches a server with this word.
    fn reaches(&mut self, word: &str) -> Result<()> {
        let mut words = BTreeSet::new();
        for _ in 0..TIMES {
            let said = self.client.tell(&format!("try tcp {SERVICE}"))?;
            words.insert(said.split_once(' ').map_or(said.clone(), |(word, _)| word.to_owned()));
        }
        ensure!(words.iter().eq([word]), "{words:?} answered and not only {word}");
        Ok(())
    }

    /// Starts the agent again, and returns when it serves Marathon's apps.
    fn restart(&mut self, arguments: &[&str]) -> Result<()> {
        self.agent = self.lab.agent(arguments)?;
        self.lab.host(1).agent_ready(PATIENCE)
    }
}

/// An app with one port of this definition, and these labels, given without their prefix.
fn app(id: &str, port: Value, labels: Value) -> Value {
    let labels = labels.as_object().into_iter().flatten();
    let labels: serde_json::Map<_, _> = labels.map(|(key, value)| (format!("{LABEL}{key}"), value.clone())).collect();
    json!({ "id": id, "networks": [{ "mode": "host" }], "portDefinitions": [port], "labels": labels })
}

/// An app of the attacker.
fn evil(port: u16, mut labels: Value) -> Value {
    labels[MARK.0.0] = json!(MARK.0.1);
    app(ATTACKER, json!({ "port": port }), labels)
}

/// An app of the attacker to which Marathon assigned the port of team A.
fn plain() -> Value {
    evil(PORT, json!({}))
}

/// An app of the attacker that names the port of team A by a label, and itself in its own list of shares.
fn labelled() -> Value {
    evil(10_000, json!({ "servicePort": PORT.to_string(), "weight": "1000", "share": "/*" }))
}

#[test]
fn label_joins_no_service_of_another_group() -> TestResult {
    let lab = Lab::start(3)?;
    let mut teams = Teams::with_web(&lab, &[])?;
    teams.attack(&labelled())?;
    teams.reaches("web")?;
    warned(&lab, "service port 10005/tcp belongs to /team-a/web, to which Marathon assigned it")?;
    // The log has it once, and the metric counts it.
    teams.agent.logs("belongs to /team-a/web", 1, PATIENCE)?;
    assert_eq!(teams.agent.logged("belongs to /team-a/web")?, 1, "{}", teams.agent.log());
    let metrics = lab.host(1).call("GET", ([127, 0, 0, 1], 9090).into(), "/metrics", "")?;
    assert!(metrics.contains("\nproxymatic_warnings 2\n"), "{metrics}");
    // The owner's label and the operator's flag permit it.
    let shares = app(WEB, json!({ "port": PORT }), json!({ "share": ATTACKER }));
    teams.sim.control("app/update", &json!({ "app": shares }))?;
    lab.service_when("the other team joins", WEB, |web| web.is_active(EVIL.address()))?;
    Ok(())
}

#[test]
fn app_of_another_group_joins_with_share_anyone() -> TestResult {
    let lab = Lab::start(3)?;
    let teams = Teams::with_web(&lab, &["--share", "anyone"])?;
    teams.attack(&labelled())?;
    lab.service_when("the other team joins", WEB, |web| web.is_active(EVIL.address()))?;
    Ok(())
}

/// One app without tasks: an idle timeout of 1 ms, an allow list without anybody, and an open network.
#[test]
fn app_without_tasks_retunes_no_service() -> TestResult {
    let lab = Lab::start(3)?;
    let mut teams = Teams::with_web(&lab, &[])?;
    let mut held = lab.host(1).tcp_client()?;
    assert_eq!(held.tell(&format!("connect c {SERVICE}"))?, "ok");
    let labels = json!({
        "servicePort": PORT.to_string(), "timeout.client": "1ms", "timeout.server": "1ms", "allow": "203.0.113.1",
        "expose": "true", "on-backend-removed": "reset", "balance": "maglev",
    });
    teams.deploy(&evil(10_000, labels), &json!([]))?;
    teams.reaches("web")?;
    warned(&lab, "timeout.client=1ms: must be a duration of at least 1s")?;
    warned(&lab, "belongs to /team-a/web")?;
    let web = lab.host(1).service(WEB)?;
    assert_eq!(web.policy, "leastconn");
    assert_eq!(held.tell("peer c")?, SERVICE);
    assert_eq!(lab.host(1).verdict("not_allowed")?, 0);
    Ok(())
}

#[test]
fn port_on_its_own_hosts_empties_no_service() -> TestResult {
    let lab = Lab::start(3)?;
    let mut teams = Teams::with_web(&lab, &[])?;
    let mut fixed = plain();
    fixed["requirePorts"] = json!(true);
    teams.deploy(&fixed, &json!([]))?;
    warned(&lab, "is the port of its tasks on their own hosts, so they are not among its backends")?;
    teams.reaches("web")?;
    // An agent without any history, and team A names its port by a label only.
    teams.agent.kill9()?;
    lab.proxymatic(&["detach"])?.well()?;
    let named = app(WEB, json!({ "port": 10_000 }), json!({ "servicePort": PORT.to_string() }));
    teams.sim.control("app/update", &json!({ "app": named }))?;
    teams.restart(&[])?;
    teams.reaches("web")?;
    Ok(())
}

/// The history of maps, of a state file, and Marathon's versions for agents that have neither.
#[test]
fn earlier_name_takes_the_port_from_no_owner() -> TestResult {
    let lab = Lab::start(3)?;
    let file = lab.run_dir().join("state.json");
    let state = ["--state-file", file.to_str().context("not UTF-8")?];
    let mut teams = Teams::with_web(&lab, &state)?;
    teams.attack(&plain())?;
    teams.reaches("web")?;
    warned(&lab, "belongs to /team-a/web, which had it first")?;
    // The maps.
    teams.agent.kill9()?;
    teams.restart(&state)?;
    warned(&lab, "belongs to /team-a/web, which had it first")?;
    teams.reaches("web")?;
    // The state file, as after a boot. Marathon does not list versions.
    assert!(teams.agent.terminate(PATIENCE)?.success());
    lab.proxymatic(&["detach"])?.well()?;
    let fault = json!({ "kind": "status", "code": 503, "paths": "/v2/apps/a/evil/versions" });
    teams.sim.control("fault", &fault)?;
    teams.restart(&state)?;
    warned(&lab, "belongs to /team-a/web, which had it first")?;
    teams.reaches("web")?;
    // The state file of a version that recorded no owner, and named the first app by id.
    assert!(teams.agent.terminate(PATIENCE)?.success());
    lab.proxymatic(&["detach"])?.well()?;
    teams.sim.control("fault", &json!({ "kind": "none" }))?;
    let mut old = decode(&fs::read(&file)?)?;
    for service in old.sources.values_mut().flat_map(|saved| saved.snapshot.services.values_mut()) {
        let service = Arc::make_mut(service);
        (service.name, service.owner) = (ATTACKER.to_owned(), None);
    }
    fs::write(&file, encode(&old)?)?;
    teams.restart(&state)?;
    warned(&lab, "belongs to /team-a/web, which had it first")?;
    teams.reaches("web")?;
    // Nothing at all.
    teams.agent.kill9()?;
    lab.proxymatic(&["detach"])?.well()?;
    teams.restart(&[])?;
    warned(&lab, "belongs to /team-a/web, which had it first")?;
    teams.reaches("web")?;
    Ok(())
}

/// The attacker names the port before Marathon assigns it to team A, and then asks Marathon for it too.
#[test]
fn label_that_came_first_does_not_keep_an_assigned_port() -> TestResult {
    let lab = Lab::start(3)?;
    let mut teams = Teams::start(&lab, &[])?;
    lab.host(1).agent_ready(PATIENCE)?;
    teams.attack(&labelled())?;
    lab.service_when("the attacker has the port", ATTACKER, |evil| evil.is_active(EVIL.address()))?;
    teams.deploy_web()?;
    warned(&lab, "to which Marathon assigned it")?;
    teams.reaches("web")?;
    teams.sim.control("app/update", &json!({ "app": plain() }))?;
    warned(&lab, "which had it first")?;
    teams.reaches("web")?;
    teams.agent.kill9()?;
    teams.restart(&[])?;
    warned(&lab, "which had it first")?;
    teams.reaches("web")?;
    Ok(())
}

#[test]
fn owner_without_tasks_is_refused_and_not_replaced() -> TestResult {
    let lab = Lab::start(3)?;
    let mut teams = Teams::with_web(&lab, &[])?;
    teams.attack(&plain())?;
    teams.sim.control("replace", &json!({ "app": WEB, "tasks": [] }))?;
    eventually_ok("team A is scaled to 0", PATIENCE, || {
        let services = lab.host(1).services()?;
        let is_left = |service: &Service| service.backends.iter().any(|it| it.port == WEB_AT.address().port());
        ensure!(!services.iter().any(is_left), "{services:?}");
        Ok(())
    })?;
    let said = teams.client.tell(&format!("try tcp {SERVICE}"))?;
    assert!(said.contains("ECONNREFUSED"), "{said}");
    teams.agent.kill9()?;
    teams.restart(&[])?;
    let said = teams.client.tell(&format!("try tcp {SERVICE}"))?;
    assert!(said.contains("ECONNREFUSED"), "{said}");
    teams.sim.task(WEB, 2, WEB_AT.address().port())?;
    lab.service_when("team A is served", WEB, |web| web.is_active(WEB_AT.address()))?;
    teams.reaches("web")?;
    Ok(())
}

#[test]
fn owner_that_was_removed_gets_its_port_back_by_flag() -> TestResult {
    let lab = Lab::start(3)?;
    let mut teams = Teams::with_web(&lab, &[])?;
    teams.attack(&labelled())?;
    teams.reaches("web")?;
    let remove = json!({ "id": WEB });
    let taken = || lab.service_when("the port is free", ATTACKER, |evil| evil.is_active(EVIL.address()));
    teams.sim.control("app/delete", &remove)?;
    taken()?;
    // A label gives the port back.
    teams.deploy_web()?;
    teams.reaches("web")?;
    // An assignment by Marathon does not: then the attacker had it first.
    teams.sim.control("app/update", &json!({ "app": plain() }))?;
    warned(&lab, "which had it first")?;
    teams.sim.control("app/delete", &remove)?;
    taken()?;
    let web = app(WEB, json!({ "port": PORT }), json!({}));
    teams.sim.control("apps", &json!({ "app": web, "tasks": [place(WEB_AT.address())] }))?;
    eventually_ok("team A is told", PATIENCE, || {
        let status = lab.host(1).status()?["warnings"].to_string();
        ensure!(status.contains("belongs to /a/evil, which had it first; /team-a/web is in another group"), "{status}");
        Ok(())
    })?;
    teams.agent.kill9()?;
    teams.restart(&["--owner", "10005=/team-a/web"])?;
    warned(&lab, "belongs to /team-a/web, by --owner")?;
    teams.reaches("web")?;
    // Also while it is away.
    teams.sim.control("app/delete", &remove)?;
    warned(&lab, "is kept for /team-a/web by --owner")?;
    eventually_ok("nobody has the port", PATIENCE, || {
        let services = lab.host(1).services()?;
        ensure!(services.iter().all(|service| service.port != PORT), "{services:?}");
        Ok(())
    })?;
    let said = teams.client.tell(&format!("try tcp {SERVICE}"))?;
    assert!(said.contains("ECONNREFUSED"), "{said}");
    Ok(())
}
