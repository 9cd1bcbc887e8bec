//! psql against postgres.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::chown;

use anyhow::{Context as _, Result};
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::Lab;

use super::{LONGEST, SERVER, answers, open_and_ever, program, publish, run, text};
use crate::fixtures::word_replicas::{At, WordService};

const SERVICE: WordService = WordService { app: "/postgres", port: 5432, replicas: &[(At::V4(2, 7432), "postgres")] };
/// postgres refuses to run as root, so it runs as nobody.
const NOBODY: u32 = 65534;

#[test]
fn psql_works_against_postgres() -> TestResult {
    let lab = Lab::start(2)?;
    let home = tempfile::tempdir()?;
    chown(home.path(), Some(NOBODY), Some(NOBODY))?;
    let data = home.path().join("data");
    let data = text(&data)?;
    let init = as_nobody("initdb", &["-D", data, "-U", "nobody", "-A", "trust", "--no-sync", "--no-instructions"])?;
    lab.host(2).run(&program("setpriv")?, &borrowed(&init), LONGEST)?.well()?;
    let mut rules = fs::OpenOptions::new().append(true).open(home.path().join("data/pg_hba.conf"))?;
    writeln!(rules, "host all all 10.77.0.0/24 trust")?;
    let socket = text(home.path())?;
    let serve = as_nobody("postgres", &["-D", data, "-h", SERVER, "-p", "7432", "-k", socket, "-c", "fsync=off"])?;
    let _server = lab.host(2).spawn(&program("setpriv")?, &borrowed(&serve))?;
    answers("postgres", || query(&lab, SERVER, "7432", "select 1"), "1")?;
    let _agent = publish(&lab, &[SERVICE], &[])?;

    for host in ["localhost", "127.0.0.1", "::1", "10.77.0.1", "fd77::1"] {
        let said = query(&lab, host, "5432", "select 6 * 7, inet_server_addr(), inet_server_port()");
        assert_eq!(said.context(host)?, format!("42|{SERVER}|7432\n"));
    }
    // A query of more than one packet in each direction.
    let long = "select length(string_agg(md5(n::text), '')) from generate_series(1, 100000) n";
    assert_eq!(query(&lab, "localhost", "5432", long)?, "3200000\n");
    assert_eq!(query(&lab, "localhost", "5432", "select repeat('x', 5000000)")?.trim().len(), 5_000_000);
    assert_eq!(open_and_ever(&lab)?, (0, 7));
    Ok(())
}

/// Returns psql's output, rows without decoration.
fn query(lab: &Lab, host: &str, port: &str, sql: &str) -> Result<String> {
    run(lab, "psql", &["-h", host, "-p", port, "-U", "nobody", "-d", "postgres", "-XAtc", sql])
}

fn as_nobody(name: &str, arguments: &[&str]) -> Result<Vec<String>> {
    let id = NOBODY.to_string();
    let mut command = vec![format!("--reuid={id}"), format!("--regid={id}"), "--clear-groups".to_owned()];
    command.push(text(&program(name)?)?.to_owned());
    command.extend(arguments.iter().map(|it| (*it).to_owned()));
    Ok(command)
}

fn borrowed(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}
