//! Real programs through a service port, unmodified. All servers are on host 2, all clients on host 1.

pub(crate) mod nameserver;
mod postgres;
mod redis;
pub(crate) mod throughput;

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Host, Lab, PATIENCE};

use crate::fixtures::cluster::{Cluster, curl};
use crate::fixtures::word_replicas::publish;

/// The time limit of one run of a client.
pub(crate) const LONGEST: Duration = Duration::from_secs(120);
/// The servers' listening address as text.
const SERVER: &str = "10.77.0.2";

#[test]
fn curl_is_answered_at_each_host_address() -> TestResult {
    let lab = Lab::start(2)?;
    let _web = Cluster::start(&lab, 1)?;
    for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "10.77.0.1", "[fd77::1]"] {
        let plain = host.trim_matches(['[', ']']);
        let said = curl(&lab, &format!("http://{host}:1234/")).with_context(|| host.to_owned())?;
        // curl shows a v4-mapped destination unchanged.
        assert_eq!(said, format!("a\n{plain}:1234"));
    }
    // Many transfers over one connection, and many in parallel.
    let many = ["--silent", "--show-error", "--parallel", "--max-time", "60", "http://localhost:1234/?[1-200]"];
    let said = lab.host(1).run(Path::new("curl"), &many, LONGEST)?.well()?.stdout;
    assert_eq!(said, "a\n".repeat(200));
    Ok(())
}

/// Runs a client on host 1, asserts success, and returns its output.
fn run(lab: &Lab, name: &str, arguments: &[&str]) -> Result<String> {
    run_on(lab.host(1), name, arguments)
}

/// Runs a client on any host, asserts success, and returns its output.
pub(crate) fn run_on(host: &Host, name: &str, arguments: &[&str]) -> Result<String> {
    let left = host.run(&program(name)?, arguments, LONGEST)?;
    Ok(left.well().with_context(|| format!("{name} {arguments:?}"))?.stdout)
}

/// Waits until a client gets the expected answer directly from the server.
fn answers(what: &str, mut ask: impl FnMut() -> Result<String>, wanted: &str) -> Result<()> {
    eventually_ok(&format!("{what} answers"), PATIENCE, || {
        let said = ask()?;
        ensure!(said.contains(wanted), "{said:?}");
        Ok(())
    })
}

/// Finds a program of the distribution.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut rooms: Vec<_> = env::split_paths(&path).collect();
    rooms.push("/usr/sbin".into());
    // Debian keeps each version of the server in a folder of its own.
    rooms.extend(fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|it| it.path().join("bin")));
    let found = rooms.into_iter().map(|room| room.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("no program {name}; `cargo xtask test netns` installs it, or says how"))
}

/// Returns the connections open now and ever, over all services.
fn open_and_ever(lab: &Lab) -> Result<(u64, u64)> {
    let backends: Vec<_> = lab.host(1).services()?.into_iter().flat_map(|service| service.backends).collect();
    Ok((backends.iter().map(|it| it.active).sum(), backends.iter().map(|it| it.total).sum()))
}

/// Returns a path as an argument.
fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}
