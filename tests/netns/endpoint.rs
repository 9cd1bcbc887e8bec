//! The status endpoint, on a host with constant load.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::http::{Reply, Url, exchange};
use proxymatic_tests::lab::{Lab, PATIENCE};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::fixtures::cluster::{APP, Cluster, URL};

const HERE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9090);

/// Returns the answer of the agent's endpoint on host 1, whatever its status code.
fn ask(lab: &Lab, path: &str) -> Result<Reply> {
    ask_from(lab, 1, HERE.into(), path)
}

fn ask_from(lab: &Lab, host: u8, address: SocketAddr, path: &str) -> Result<Reply> {
    let exchange = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        exchange(&mut stream, "GET", &Url::new(address, path), "")
    };
    Ok(lab.host(host).net().enter(exchange)??)
}

fn when_status(lab: &Lab, code: u16, word: &str) -> Result<()> {
    eventually_ok(&format!("/status is {code} {word}"), PATIENCE, || {
        let reply = ask(lab, "/status")?;
        ensure!((reply.status, reply.body.as_str()) == (code, word), "{reply:?}");
        Ok(())
    })
}

#[test]
fn commands_and_endpoint_return_the_same_bytes() -> TestResult {
    let lab = Lab::start(2)?;
    let web = Cluster::start(&lab, 2)?;
    web.ask(10)?;
    eventually_ok("both say the same", PATIENCE, || {
        let printed = lab.proxymatic(&["-j", "service", "show"])?.well()?.stdout;
        let answered = ask(&lab, "/v1/services")?.body;
        ensure!(printed == answered, "{printed}\n{answered}");
        ensure!(printed.contains("\"total\":") && printed.ends_with("]\n"), "{printed}");
        Ok(())
    })?;
    let status: Value = serde_json::from_str(&ask(&lab, "/v1/status")?.body)?;
    assert_eq!((&status["agent"]["state"], &status["services"]), (&json!("OK"), &json!(1)), "{status}");
    Ok(())
}

#[test]
fn endpoint_status_follows_the_state_of_the_agent() -> TestResult {
    let lab = Lab::start(2)?;
    let mut agent = lab.agent(&["--drain", "600"])?;
    when_status(&lab, 503, "INITIALIZING")?;
    let sim = lab.sim()?;
    let first = lab.replica(2, 8001, "a")?;
    sim.app(APP, 1234, &[(2, 8001)])?;
    when_status(&lab, 200, "OK")?;
    agent.signal(nix::sys::signal::Signal::SIGTERM)?;
    when_status(&lab, 503, "TERMINATING")?;
    // The agent still follows Marathon, and stays TERMINATING.
    let second = lab.replica(2, 8002, "b")?;
    sim.task(APP, 2, 8002)?;
    lab.service_when("b gets connections", APP, |web| web.is_active(second.address) && web.is_active(first.address))?;
    when_status(&lab, 503, "TERMINATING")?;
    // A second SIGTERM ends the agent at once.
    assert!(agent.terminate(PATIENCE)?.success());
    let seen = lab.client(&["http", "--url", URL, "--count", "50"])?;
    assert!(seen.failed == 0 && seen.by_replica.keys().eq(["a", "b"]), "{seen:?}");
    Ok(())
}

#[test]
fn thousand_bad_connections_disturb_neither_connects_nor_agent() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 2)?;
    // This process has all the sockets; its default limit is 1,024 files.
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files })?;
    let load = lab.load(URL, &["--threads", "4", "--linger0"])?;
    let crowd = lab.host(1).net().enter(|| -> Result<Vec<TcpStream>> {
        let connect = |nth: usize| -> Result<TcpStream> {
            let mut stream = TcpStream::connect(HERE).with_context(|| format!("connection {nth}"))?;
            // Some connections send nothing, some send garbage, some never complete a request. The agent may reset
            // those that it rejects.
            let _ = match nth % 3 {
                0 => Ok(()),
                1 => stream.write_all(&[0xff; 512]),
                _ => stream.write_all(b"GET /metrics HTTP/1.1\r\nx-slow: "),
            };
            Ok(stream)
        };
        (0..1000).map(connect).collect()
    })??;
    load.reaches(500)?;
    // The agent's loop still works: it adds a new replica meanwhile, and other clients are served.
    web.scale()?;
    web.when_active(&[0, 1, 2])?;
    let other = ask_from(&lab, 2, (lab.host(1).address(), 9090).into(), "/status")?;
    assert_eq!((other.status, other.body.as_str()), (200, "OK"));
    drop(crowd);
    // A burst of complete requests.
    let storm = lab.host(1).net().enter(|| {
        thread::scope(|scope| {
            let ask = || -> Result<usize> {
                let mut answered = 0;
                for _ in 0..100 {
                    let mut stream = TcpStream::connect(HERE)?;
                    stream.set_read_timeout(Some(PATIENCE))?;
                    let mut answer = Vec::new();
                    // A rejected request may end with a reset.
                    let asked = stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
                    let _ = asked.and_then(|()| stream.read_to_end(&mut answer));
                    answered += usize::from(answer.starts_with(b"HTTP/1.1 200"));
                }
                Ok(answered)
            };
            let threads: Vec<_> = (0..10).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<Result<usize>>()
        })
    })??;
    web.sim.state(&web.tasks[2], "TASK_KILLING")?;
    web.when_active(&[0, 1])?;
    let seen = load.finish()?;
    assert!(storm > 500, "{storm} of 1000 scrapes were answered");
    assert_eq!(seen.failed, 0, "{seen:?}");
    println!("{storm} of 1000 scrapes answered; {} connects, the slowest {:.1} ms", seen.ok, seen.slowest_ms());
    Ok(())
}

#[test]
fn endpoint_port_in_use_ends_the_start_before_any_attach() -> TestResult {
    let lab = Lab::start(2)?;
    let _taken = lab.host(1).net().enter(|| std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 9090)))??;
    let _sim = lab.sim()?;
    let left = lab.agent(&[])?.finish(PATIENCE)?;
    assert_eq!(left.status.code(), Some(2), "{left:?}");
    let said = "--status-endpoint (or STATUS_ENDPOINT) 0.0.0.0:9090: another program listens there; choose another";
    assert!(left.stderr.contains(said), "{left:?}");
    assert!(!lab.host(1).pins().exists(), "nothing is pinned");
    let _agent = lab.agent(&["--status-endpoint", ""])?;
    lab.host(1).agent_ready(PATIENCE)?;
    Ok(())
}
