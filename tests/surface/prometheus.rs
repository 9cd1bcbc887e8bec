//! Metrics, alert rules and dashboard, with a real Prometheus that scrapes a real agent.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};
use proxymatic_tests::process::Process;
use serde_json::{Value, json};

use crate::{checkout, serve, within};

const PROMETHEUS: &str = "http://127.0.0.1:9091";
const RULES: &str = "deploy/prometheus/alerts.yml";
const DASHBOARD: &str = "deploy/grafana/proxymatic.json";
/// Timeout of some scrapes and of their results.
const SCRAPED: Duration = Duration::from_secs(120);

/// Returns the output of a shell command in the checkout, on host 1.
fn shell(lab: &Lab, line: &str) -> Result<String> {
    let line = format!("cd '{}' && {line}", checkout()?.display());
    let left = lab.host(1).run(Path::new("sh"), &["-c", &line], SCRAPED)?;
    ensure!(left.status.success(), "{line}: {left:?}");
    Ok(left.stdout + &left.stderr)
}

/// A Prometheus on host 1 that scrapes the agent there every five seconds and has our rules. A scrape may take as long.
fn prometheus(lab: &Lab) -> Result<Process> {
    let config = json!({
        "global": { "scrape_interval": "5s", "scrape_timeout": "5s", "evaluation_interval": "1s" },
        "rule_files": [checkout()?.join(RULES)],
        "scrape_configs": [{ "job_name": "proxymatic", "static_configs": [{ "targets": ["127.0.0.1:9090"] }] }],
    });
    let file = lab.run_dir().join("prometheus.yml");
    // Every JSON is YAML.
    fs::write(&file, config.to_string())?;
    let file = format!("--config.file={}", file.display());
    let data = format!("--storage.tsdb.path={}", lab.run_dir().join("prometheus").display());
    lab.host(1).spawn(Path::new("prometheus"), &[&file, &data, "--web.listen-address=127.0.0.1:9091"])
}

/// Returns Prometheus's answer to a path of its API.
fn api(lab: &Lab, path: &str, query: &[(&str, &str)]) -> Result<Value> {
    within(lab.host(1), async {
        // reqwest is built without a TLS provider and needs one anyway; installing a second one does no harm.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().timeout(PATIENCE).build()?;
        let answer: Value = client.get(format!("{PROMETHEUS}{path}")).query(query).send().await?.json().await?;
        ensure!(answer["status"] == "success", "{path} {query:?}: {answer}");
        Ok(answer["data"].clone())
    })
}

/// The rows of a query.
fn query(lab: &Lab, expression: &str) -> Result<Vec<Value>> {
    let data = api(lab, "/api/v1/query", &[("query", expression)])?;
    Ok(data["result"].as_array().with_context(|| format!("{expression}: {data}"))?.clone())
}

/// Returns every metric of ours in an expression.
fn metrics(expression: &str) -> BTreeSet<&str> {
    let words = expression.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    words.filter(|word| word.starts_with("proxymatic_")).collect()
}

/// Returns the expressions of the dashboard's panels, with its variables filled in.
fn panels() -> Result<Vec<(String, String)>> {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(checkout()?.join(DASHBOARD))?)?;
    let mut panels = Vec::new();
    for panel in dashboard["panels"].as_array().context("panels")? {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().with_context(|| format!("{target}"))?;
            let filled =
                expression.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$service", ".*");
            ensure!(!filled.contains('$'), "{filled} has a variable that this test does not know");
            panels.push((panel["title"].as_str().context("a panel without a title")?.to_owned(), filled));
        }
    }
    ensure!(panels.len() > 8, "{panels:?}");
    Ok(panels)
}

/// Returns the firing rules; an error if a rule is invalid, or names a metric that does not exist and so could never
/// fire.
fn fire(lab: &Lab) -> Result<BTreeSet<String>> {
    let groups = api(lab, "/api/v1/rules", &[])?;
    let groups = groups["groups"].as_array().into_iter().flatten();
    let rules: Vec<_> = groups.flat_map(|group| group["rules"].as_array()).flatten().collect();
    ensure!(rules.len() >= 8, "{rules:?}");
    let mut fire = BTreeSet::new();
    for rule in rules {
        let (name, expression) = (rule["name"].as_str().context("name")?, rule["query"].as_str().context("query")?);
        ensure!(rule["health"] == "ok", "{rule}");
        for metric in metrics(expression) {
            ensure!(!query(lab, metric)?.is_empty(), "{name}: there is no {metric}");
        }
        if !query(lab, expression)?.is_empty() {
            fire.insert(name.to_owned());
        }
    }
    Ok(fire)
}

#[test]
fn rules_and_dashboard_work_on_a_real_scrape() -> TestResult {
    let lab = Lab::start(2)?;
    let _a = lab.replica(2, 8001, "a")?;
    let backend = |port: u16| json!({ "address": lab.host(2).address(), "port": port });
    // Nothing listens on 8009, and service 1235 has no backend.
    let services = json!([
        { "name": "/web", "port": 1234, "backends": [backend(8001), backend(8009)] },
        { "name": "/empty", "port": 1235, "backends": [] },
    ]);
    let mut agent = serve(&lab, &services)?;
    let _prometheus = prometheus(&lab)?;
    let load = lab.load("http://localhost:1234/", &["--threads", "1", "--linger0"])?;
    let refused = lab.client(&["http", "--url", "http://localhost:1235/", "--count", "5"])?;
    assert_eq!(refused.failed, 5, "{refused:?}");
    eventually_ok("it is scraped", SCRAPED, || {
        ensure!(
            query(&lab, "min_over_time(up[15s]) == 1")?.len() == 1
                && query(&lab, "rate(proxymatic_verdicts_total[1m])")?.len() > 1
        );
        Ok(())
    })?;

    for (title, expression) in panels()? {
        // A failed scrape removes all series until the next one.
        eventually_ok(&format!("panel {title:?} has something to show"), SCRAPED, || {
            ensure!(!query(&lab, &expression)?.is_empty(), "{expression} is empty");
            Ok(())
        })?;
    }

    // Nothing else is wrong here, so the other rules do not fire.
    let expected = BTreeSet::from(["ProxymaticServiceWithoutBackend".to_owned()]);
    eventually_ok("only the rule for a service without a backend speaks", SCRAPED, || {
        let fire = fire(&lab)?;
        ensure!(fire == expected, "{fire:?}");
        Ok(())
    })?;
    load.finish()?;

    agent.kill9()?;
    eventually_ok("the one for an agent that is down speaks", SCRAPED, || {
        ensure!(!query(&lab, "up{job=\"proxymatic\"} == 0")?.is_empty());
        Ok(())
    })?;
    Ok(())
}

#[test]
fn metrics_and_rules_pass_promtool() -> TestResult {
    let lab = Lab::start(2)?;
    let a = lab.replica(2, 8001, "a")?;
    let backend = json!({ "address": a.address.ip(), "port": a.address.port() });
    let _agent = serve(&lab, &json!([{ "name": "/we\"b\\", "port": 1234, "backends": [backend] }]))?;
    lab.client(&["http", "--url", "http://localhost:1234/", "--count", "5"])?;
    let metrics = shell(&lab, "curl --silent --fail http://127.0.0.1:9090/metrics")?;
    assert!(
        metrics.contains(r#"proxymatic_service_connections_total{service="/we\"b\\",protocol="tcp",port="1234"} 5"#),
        "{metrics}"
    );
    let said = shell(&lab, "curl --silent --fail http://127.0.0.1:9090/metrics | promtool check metrics")?;
    assert_eq!(said.trim(), "", "warnings of promtool");
    shell(&lab, &format!("promtool check rules {RULES}"))?;
    // Asserts that each rule fires when it should, and not before.
    let tested = shell(&lab, "promtool test rules deploy/prometheus/alerts.test.yml")?;
    assert!(tested.contains("SUCCESS"), "{tested}");
    Ok(())
}
