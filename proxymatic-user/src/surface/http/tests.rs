//! The status endpoint through real connections: its answers, and its limits.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::*;
use crate::surface::{Overview, fixtures};

/// An endpoint, the agent's side of it, and the number of times the maps were read.
struct Endpoint {
    address: SocketAddr,
    agent: watch::Sender<AgentStatus>,
    reads: Arc<AtomicU64>,
}

impl Endpoint {
    fn start(state: &str) -> Self {
        Self::with(state, |agent| {
            let mut overview = fixtures::overview(vec![fixtures::service("/web", 1234, &["active", "ejected"])]);
            overview.status.agent = Some(agent);
            Ok(overview)
        })
    }

    fn with(state: &str, read: impl Fn(AgentStatus) -> Result<Overview, String> + Send + Sync + 'static) -> Self {
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let (agent, latest) = watch::channel(fixtures::agent(state));
        let reads = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&reads);
        let read = move |agent| {
            counted.fetch_add(1, Ordering::Relaxed);
            read(agent)
        };
        start(listener, latest, Box::new(read)).unwrap();
        Self { address, agent, reads }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Returns the whole answer: status line, headers, body.
    fn ask(&self, method: &str, path: &str) -> String {
        self.try_ask(method, path).unwrap()
    }

    fn try_ask(&self, method: &str, path: &str) -> io::Result<String> {
        let mut stream = self.connect();
        stream.write_all(format!("{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn status(&self) -> (String, String) {
        let answer = self.ask("GET", "/status");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap()["HTTP/1.1 ".len()..].to_owned(), body.to_owned())
    }
}

/// Returns what arrives until the other side closes the connection or resets it.
fn rest(stream: &mut TcpStream) -> Result<Vec<u8>, io::Error> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map(|_| bytes)
}

#[test]
fn status_is_the_state_of_the_agent() {
    let endpoint = Endpoint::start("INITIALIZING");
    let unavailable = |word: &str| ("503 Service Unavailable".to_owned(), word.to_owned());
    assert_eq!(endpoint.status(), unavailable("INITIALIZING"));
    endpoint.agent.send_replace(fixtures::agent("OK"));
    assert_eq!(endpoint.status(), ("200 OK".into(), "OK".into()));
    endpoint.agent.send_replace(fixtures::agent("TERMINATING"));
    assert_eq!(endpoint.status(), unavailable("TERMINATING"));
    assert_eq!(endpoint.reads.load(Ordering::Relaxed), 0, "/status must not read the maps");
}

#[test]
fn agent_with_a_stuck_loop_is_not_healthy() {
    let endpoint = Endpoint::start("INITIALIZING");
    assert!(endpoint.ask("GET", "/healthz").starts_with("HTTP/1.1 200 OK"));
    let at = Instant::now().checked_sub(Duration::from_secs(40)).unwrap();
    endpoint.agent.send_replace(AgentStatus { at: Some(at), ..fixtures::agent("OK") });
    let answer = endpoint.ask("GET", "/healthz");
    let has_age = |age: u64| answer.ends_with(&format!("has made no iteration for {age} s"));
    assert!(answer.starts_with("HTTP/1.1 503") && (40..=at.elapsed().as_secs()).any(has_age), "{answer}");
}

#[test]
fn every_path_has_its_content_type_and_is_read_only() {
    let endpoint = Endpoint::start("OK");
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/?q=we", "text/html; charset=utf-8"),
        ("/status", "text/plain; charset=utf-8"),
        ("/healthz", "text/plain; charset=utf-8"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/v1/services", "application/json"),
        ("/v1/status", "application/json"),
    ] {
        let answer = endpoint.ask("GET", path);
        assert!(
            answer.starts_with("HTTP/1.1 200 OK") && answer.contains(&format!("content-type: {kind}\r\n")),
            "{answer}"
        );
        let head = endpoint.ask("HEAD", path);
        assert!(head.starts_with("HTTP/1.1 200 OK") && head.ends_with("\r\n\r\n"), "{head}");
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "NONSENSE"] {
            let refused = endpoint.ask(method, path);
            assert!(refused.starts_with("HTTP/1.1 405") && refused.contains("allow: GET,HEAD"), "{method} {refused}");
        }
    }
    assert!(endpoint.ask("GET", "/v2/services").starts_with("HTTP/1.1 404"));
    let page = endpoint.ask("GET", "/");
    assert!(page.contains("content-security-policy: default-src 'none'; style-src 'sha256-"), "{page}");
}

#[test]
fn services_equal_the_output_of_the_command() {
    let endpoint = Endpoint::start("OK");
    let answer = endpoint.ask("GET", "/v1/services");
    let rows = vec![fixtures::service("/web", 1234, &["active", "ejected"])];
    let printed = crate::surface::text(&rows, crate::surface::Format::Json).unwrap() + "\n";
    assert_eq!(answer.split_once("\r\n\r\n").unwrap().1, printed);
}

#[test]
fn failed_read_is_reported_and_retried() {
    let endpoint = Endpoint::with("OK", |_| Err("nothing is pinned".into()));
    for path in ["/", "/metrics", "/v1/services", "/v1/status"] {
        let answer = endpoint.ask("GET", path);
        assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("nothing is pinned"), "{answer}");
    }
    assert_eq!(endpoint.reads.load(Ordering::Relaxed), 4);
    assert!(endpoint.ask("GET", "/status").starts_with("HTTP/1.1 200 OK"));
}

#[test]
fn concurrent_requests_read_the_maps_once() {
    let together = Arc::new(Barrier::new(2));
    let held = Arc::clone(&together);
    let is_first = AtomicBool::new(true);
    let endpoint = Endpoint::with("OK", move |_| {
        if is_first.swap(false, Ordering::Relaxed) {
            held.wait();
        }
        Ok(fixtures::overview(vec![]))
    });
    thread::scope(|scope| {
        let requests: Vec<_> = (0..20).map(|_| scope.spawn(|| endpoint.ask("GET", "/metrics"))).collect();
        // A client that disconnects early changes nothing.
        let mut hasty = endpoint.connect();
        hasty.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        hasty.shutdown(Shutdown::Both).unwrap();
        let released = Instant::now();
        together.wait();
        for answer in requests {
            assert!(answer.join().unwrap().starts_with("HTTP/1.1 200 OK"));
        }
        // Answers within a second come from the same reading. On a busy machine they may take longer than that.
        let reads = endpoint.reads.load(Ordering::Relaxed);
        let most = 1 + released.elapsed().as_secs();
        assert!((1..=most).contains(&reads), "{reads} instead of {most}");
    });
}

#[test]
fn too_many_connections_are_closed_and_the_endpoint_works() {
    let endpoint = Endpoint::start("OK");
    let mut crowd: Vec<_> = (0..600).map(|_| endpoint.connect()).collect();
    let is_turned_away = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut first = [0; 12];
        matches!(stream.read(&mut first), Ok(12) if &first == b"HTTP/1.1 503")
    };
    let turned_away = crowd.iter_mut().map(is_turned_away).filter(|it| *it).count();
    assert!((500..=600 - limits::PER_CLIENT).contains(&turned_away), "{turned_away}");
    drop(crowd);
    let begun = Instant::now();
    // Until the endpoint notices that, it turns these away too. Then the connection may be reset.
    let ask = |path| loop {
        match endpoint.try_ask("GET", path) {
            Ok(answer) if answer.starts_with("HTTP/1.1 200 OK") => break answer,
            Ok(_) | Err(_) => assert!(begun.elapsed() < Duration::from_secs(60)),
        }
    };
    ask("/status");
    let metrics = ask("/metrics");
    let counted = metrics.lines().find_map(|line| line.strip_prefix("proxymatic_http_rejected_connections_total "));
    assert!(counted.is_some_and(|it| it.parse::<usize>().unwrap() >= turned_away), "{metrics}");
}

#[test]
fn garbage_and_huge_or_endless_heads_are_cut_off() {
    let endpoint = Endpoint::start("OK");
    let mut garbage = endpoint.connect();
    garbage.write_all(&[0xff; 64]).unwrap();
    assert!(rest(&mut garbage).unwrap_or_default().starts_with(b"HTTP/1.1 400"));
    let mut huge = endpoint.connect();
    // The endpoint closes the connection before it has read everything.
    let _ = huge.write_all(format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(1 << 20)).as_bytes());
    assert!(rest(&mut huge).map_or(true, |said| said.starts_with(b"HTTP/1.1 431")));
    let (begun, mut slow) = (Instant::now(), endpoint.connect());
    slow.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let _ = rest(&mut slow);
    let took = begun.elapsed();
    // Less than the timeout for a whole connection.
    assert!(took >= limits::HEAD && took < 5 * limits::HEAD, "{took:?}");
    assert!(endpoint.ask("GET", "/status").starts_with("HTTP/1.1 200 OK"));
}
