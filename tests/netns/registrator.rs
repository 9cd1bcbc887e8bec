//! The registrator source: from keys in a real etcd to connections that are answered.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};
use proxymatic_tests::process::Process;
use serde_json::json;

use crate::fixtures::cluster::{PORT, URL};
use crate::fixtures::file_source::replicas;
use crate::programs::program;

/// etcd's addresses on host 1, for clients and for other members.
const CLIENTS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 2379);
const MEMBERS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 2380);

/// The store of etcd that has the keys.
#[derive(Clone, Copy, Debug)]
enum Store {
    V2,
    V3,
}

/// A running etcd on host 1.
struct Etcd<'lab> {
    lab: &'lab Lab,
    store: Store,
    _process: Process,
}

impl<'lab> Etcd<'lab> {
    fn start(lab: &'lab Lab, store: Store) -> Result<Self> {
        let (clients, members) = (format!("http://{CLIENTS}"), format!("http://{MEMBERS}"));
        let data = lab.run_dir().join("etcd").display().to_string();
        let v2 = format!("--enable-v2={}", matches!(store, Store::V2));
        let process = lab.host(1).spawn(
            &program("etcd")?,
            &[
                &v2,
                "--data-dir",
                &data,
                "--listen-client-urls",
                &clients,
                "--advertise-client-urls",
                &clients,
                "--listen-peer-urls",
                &members,
                "--initial-advertise-peer-urls",
                &members,
                "--initial-cluster",
                &format!("default={members}"),
            ],
        )?;
        eventually_ok("etcd is up", PATIENCE, || {
            let said = lab.host(1).call("GET", CLIENTS, "/health", "")?;
            ensure!(said.contains("true"), "{said}");
            Ok(())
        })?;
        Ok(Self { lab, store, _process: process })
    }

    fn put(&self, key: &str, value: SocketAddr) -> Result<()> {
        let call = |method, path: &str, body: &str| self.lab.host(1).call(method, CLIENTS, path, body).map(drop);
        match self.store {
            Store::V2 => call("PUT", &format!("/v2/keys{key}?value={value}"), ""),
            Store::V3 => {
                let (key, value) = (STANDARD.encode(key), STANDARD.encode(value.to_string()));
                call("POST", "/v3/kv/put", &json!({ "key": key, "value": value }).to_string())
            }
        }
    }

    fn delete(&self, key: &str) -> Result<()> {
        let call = |method, path: &str, body: &str| self.lab.host(1).call(method, CLIENTS, path, body).map(drop);
        match self.store {
            Store::V2 => call("DELETE", &format!("/v2/keys{key}"), ""),
            Store::V3 => call("POST", "/v3/kv/deleterange", &json!({ "key": STANDARD.encode(key) }).to_string()),
        }
    }
}

/// The key of a container that exposes the service port.
fn key(container: &str) -> String {
    format!("/services/web/host2:{container}:{PORT}")
}

/// Waits until connections to the service are answered by these replicas, and asserts that later ones are too.
fn answered_by(lab: &Lab, names: &[&str]) -> Result<()> {
    // Eighty connections miss one of three replicas by chance once in 10^13 times.
    let ask = || -> Result<()> {
        let seen = lab.client(&["http", "--url", URL, "--count", "80", "--linger0"])?;
        ensure!(seen.failed == 0 && seen.by_replica.keys().eq(names), "{names:?} should answer: {seen:?}");
        Ok(())
    };
    eventually_ok(&format!("connections are answered by {names:?}"), PATIENCE, ask)?;
    ask()
}

#[test]
fn etcd_keys_route_connections_to_their_containers() -> TestResult {
    for store in [Store::V2, Store::V3] {
        let lab = Lab::start(2)?;
        let etcd = Etcd::start(&lab, store)?;
        let replicas = replicas(&lab, 3)?;
        let source = format!("etcd://{CLIENTS}/services");
        let _agent = lab.host(1).agent_of(lab.host(1).cgroup(), &["--registrator", &source])?;
        lab.host(1).agent_ready(PATIENCE)?;
        let refused = lab.client(&["http", "--url", URL])?;
        assert_eq!(refused.errors.keys().collect::<Vec<_>>(), ["ECONNREFUSED"], "{store:?}");

        for (replica, container) in replicas.iter().zip(["web.1", "web.2", "web.3"]) {
            etcd.put(&key(container), replica.address)?;
        }
        answered_by(&lab, &["a", "b", "c"])?;
        // The replica keeps running: only the missing key removes it.
        etcd.delete(&key("web.2"))?;
        answered_by(&lab, &["a", "c"])?;
        etcd.put(&key("web.1"), replicas[1].address)?;
        answered_by(&lab, &["b", "c"])?;
    }
    Ok(())
}
