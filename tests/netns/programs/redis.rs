//! redis-cli and redis-benchmark against redis-server.

use std::os::unix::fs::symlink;

use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::Lab;

use super::{SERVER, answers, open_and_ever, program, publish, run, text};
use crate::fixtures::word_replicas::{At, WordService};

const SERVICE: WordService = WordService { app: "/redis", port: 6379, replicas: &[(At::V4(2, 7379), "redis")] };

#[test]
fn redis_cli_and_redis_benchmark_work_against_redis_server() -> TestResult {
    let lab = Lab::start(2)?;
    // Debian's tools package has the server under another name and without a unit that starts it. The program selects
    // its role by the name it is called by.
    let server = lab.run_dir().join("redis-server");
    symlink(program("redis-check-rdb")?, &server)?;
    let folder = text(lab.run_dir())?.to_owned();
    let _server = lab.host(2).spawn(
        &server,
        &["--bind", SERVER, "--port", "7379", "--protected-mode", "no", "--save", "", "--dir", &folder],
    )?;
    answers("redis-server", || run(&lab, "redis-cli", &["-h", SERVER, "-p", "7379", "ping"]), "PONG")?;
    let _agent = publish(&lab, &[SERVICE], &[])?;

    assert_eq!(run(&lab, "redis-cli", &["set", "key", "value"])?, "OK\n");
    for host in ["localhost", "127.0.0.1", "::1", "10.77.0.1", "fd77::1"] {
        assert_eq!(run(&lab, "redis-cli", &["-h", host, "get", "key"])?, "value\n", "{host}");
    }
    assert_eq!(open_and_ever(&lab)?, (0, 6));
    let bench = ["-h", "localhost", "-n", "20000", "-c", "50", "-P", "4", "-t", "set,get", "--csv"];
    let said = run(&lab, "redis-benchmark", &bench)?;
    let done: Vec<_> = said.lines().filter(|line| line.starts_with("\"SET\"") || line.starts_with("\"GET\"")).collect();
    assert_eq!(done.len(), 2, "{said}");
    println!("redis-benchmark: {done:?}");
    let (open, ever) = open_and_ever(&lab)?;
    assert!(open == 0 && ever >= 106, "{open} open, {ever} ever: fifty clients for each of two commands");
    Ok(())
}
