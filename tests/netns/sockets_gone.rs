//! Sockets that are connected to a removed backend are reset, in every namespace; all others are left alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, SocketProgram};
use proxymatic_tests::net::host_address6;
use proxymatic_user::dataplane::kernel::{Maps, Pins};
use serde_json::json;

use crate::fixtures::cluster::{APP, Cluster, PORT, SERVICE, place};
use crate::fixtures::word_replicas::At;

/// A second service.
const KEPT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT + 1);

/// A UDP service with replicas that answer `a` and `b`.
fn udp<'lab>(lab: &'lab Lab) -> Result<(Cluster<'lab>, SocketProgram)> {
    let web = Cluster::unready(lab, 2, json!({ "protocol": "udp" }))?;
    let mut servers = lab.host(2).datagrams_in(lab.host(2).cgroup())?;
    for (replica, word) in web.replicas.iter().zip(["a", "b"]) {
        ensure!(servers.tell(&format!("serve {} {word}", replica.address))? == "ok", "{} is taken", replica.address);
    }
    web.when_active(&[0, 1])?;
    Ok((web, servers))
}

/// The task of the replica that answers with this word.
fn nth(word: &str) -> Result<usize> {
    ["a", "b"].iter().position(|known| *known == word).with_context(|| format!("{word:?} answered"))
}

#[test]
fn connected_udp_socket_of_a_gone_backend_is_reset() -> TestResult {
    let lab = Lab::start(2)?;
    let (web, _servers) = udp(&lab)?;
    // One socket in the agent's namespace, one in a namespace of its own as a container has.
    let (here, there) = (lab.host(1), lab.host(2));
    let address = format!("{}:{PORT}", here.address());
    let mut clients =
        [(here.datagrams_in(here.cgroup())?, SERVICE.to_string()), (there.datagrams_in(here.cgroup())?, address)];
    // The second namespace lacks the first one's address: only the destination counts.
    let mut gone = None;
    for (client, destination) in &mut clients {
        assert!(client.tell("open c")? == "ok");
        let first = loop {
            assert!(client.tell(&format!("connect c {destination}"))? == "ok");
            let word = client.tell("ask c")?;
            if *gone.get_or_insert_with(|| word.clone()) == word {
                break word;
            }
        };
        assert!(client.tell("peer c")? == *destination, "{first}");
    }
    let gone = gone.context("no reply")?;
    web.sim.state(&web.tasks[nth(&gone)?], "TASK_KILLED")?;
    for (client, destination) in &mut clients {
        assert_eq!(client.tell("error c")?, "ECONNABORTED");
        assert_eq!(client.tell(&format!("connect c {destination}"))?, "ok");
        let word = client.tell("ask c")?;
        assert!(nth(&word).is_ok() && word != gone, "{word}");
    }
    web.agent.logs("is gone: 2 sockets that were connected to it were reset", 1, PATIENCE)?;
    Ok(())
}

#[test]
fn connected_ipv6_socket_of_a_gone_backend_is_reset() -> TestResult {
    // IPv6 backends, and IPv4 backends to which the socket is connected by v4-mapped addresses.
    for at in [At::V6 as fn(u8, u16) -> At, At::V4] {
        let lab = Lab::start(2)?;
        let replicas = [(at(2, 8001), "a"), (at(2, 8002), "b")];
        let mut servers = lab.host(2).datagrams_in(lab.host(2).cgroup())?;
        for (at, word) in replicas {
            assert_eq!(servers.tell(&format!("serve {} {word}", at.address()))?, "ok", "{at:?} is taken");
        }
        let sim = lab.sim()?;
        let places = replicas.map(|(at, _)| place(at.address()));
        let app = json!({ "id": APP, "servicePort": PORT, "protocol": "udp", "tasks": places });
        let tasks: Vec<String> = serde_json::from_value(sim.control("apps", &app)?["tasks"].take())?;
        let agent = lab.agent(&[])?;
        lab.service_when("both replicas get datagrams", APP, |web| web.active().count() == 2)?;

        let (here, there) = (lab.host(1), lab.host(2));
        let own = SocketAddr::new(host_address6(1).into(), PORT);
        let mut clients = [
            (here.datagrams_in(here.cgroup())?, SocketAddr::new(Ipv6Addr::LOCALHOST.into(), PORT)),
            (there.datagrams_in(here.cgroup())?, own),
        ];
        // One socket of each client to each backend.
        for (client, destination) in &mut clients {
            for word in ["a", "b"] {
                assert_eq!(client.tell(&format!("open6 {word}"))?, "ok");
                while client
                    .tell(&format!("connect {word} {destination}"))
                    .and_then(|_| client.tell(&format!("ask {word}")))?
                    != word
                {}
                assert_eq!(client.tell(&format!("peer {word}"))?, destination.to_string());
            }
        }
        sim.state(&tasks[0], "TASK_KILLED")?;
        for (client, destination) in &mut clients {
            assert_eq!(client.tell("error a")?, "ECONNABORTED");
            // The socket itself can be reused.
            assert_eq!(client.tell(&format!("connect a {destination}"))?, "ok");
            assert_eq!((client.tell("ask a")?.as_str(), client.tell("ask b")?.as_str()), ("b", "b"));
        }
        agent.logs("is gone: 2 sockets that were connected to it were reset", 1, PATIENCE)?;
    }
    Ok(())
}

#[test]
fn unconnected_udp_socket_keeps_its_port_without_its_backend() -> TestResult {
    let lab = Lab::start(2)?;
    let (web, _servers) = udp(&lab)?;
    let mut client = lab.host(1).datagrams_in(lab.host(1).cgroup())?;
    assert!(client.tell("open c")? == "ok");
    let from = |answer: &str| answer.split_once(' ').map(|(word, from)| (word.to_owned(), from.to_owned()));
    let (word, peer) = from(&client.tell(&format!("askto c {SERVICE}"))?).context("no answer")?;
    assert_eq!(peer, SERVICE.to_string());
    let local = client.tell("local c")?;
    let other = 1 - nth(&word)?;
    web.sim.state(&web.tasks[nth(&word)?], "TASK_KILLED")?;
    web.when_active(&[other])?;
    let (word, peer) = from(&client.tell(&format!("askto c {SERVICE}"))?).context("no answer")?;
    assert_eq!((nth(&word)?, peer), (other, SERVICE.to_string()));
    assert_eq!(client.tell("local c")?, local, "the port that others know it by");
    Ok(())
}

#[test]
fn udp_socket_connected_directly_to_a_replica_is_not_reset() -> TestResult {
    let lab = Lab::start(2)?;
    let (web, _servers) = udp(&lab)?;
    let mut client = lab.host(1).datagrams_in(lab.host(1).cgroup())?;
    let direct = web.replicas[0].address;
    for order in ["open told", "open direct", "open both"] {
        assert!(client.tell(order)? == "ok");
    }
    assert_eq!(client.tell(&format!("connect direct {direct}"))?, "ok");
    // A hook once sent the socket there; it is connected to another address now.
    while client.tell(&format!("connect both {SERVICE}")).and_then(|_| client.tell("ask both"))? != "a" {}
    assert_eq!(client.tell(&format!("connect both {}", web.replicas[1].address))?, "ok");
    while client.tell(&format!("connect told {SERVICE}")).and_then(|_| client.tell("ask told"))? != "a" {}
    web.sim.state(&web.tasks[0], "TASK_KILLED")?;
    assert_eq!(client.tell("error told")?, "ECONNABORTED");
    assert_eq!((client.tell("ask direct")?.as_str(), client.tell("ask both")?.as_str()), ("a", "b"));
    Ok(())
}

#[test]
fn tcp_connections_to_a_gone_backend_are_reset_where_labelled() -> TestResult {
    let lab = Lab::start(2)?;
    let web = Cluster::labelled(&lab, 2, &[("on-backend-removed", "reset")])?;
    // The same replicas in a service without the setting, whose task ends before the other's.
    let kept = web.sim.app("/kept", KEPT.port(), &[(2, 8001), (2, 8002)])?;
    lab.service_when("both services have both", "/kept", |service| service.active().count() == 2)?;
    let mut client = lab.host(1).tcp_client()?;
    assert_eq!(client.hold("c", 4, SERVICE)?, ["ok"; 4]);
    assert_eq!(client.hold("k", 4, KEPT)?, ["ok"; 4]);
    let maps = Maps::open(&Pins::at(&lab.host(1).pins()))?;
    let tables = maps.tables()?;
    let open_to = |task: &str| -> Result<u64> {
        let (id, _) = tables.backends().iter().find(|(_, entry)| entry.task == task).context("no such backend")?;
        Ok(maps.load(*id).map_or(0, |load| load.active()))
    };
    let open = [open_to(&web.tasks[0])?, open_to(&kept[0])?];
    assert!(open.iter().all(|open| (1..4).contains(open)), "{open:?} of 4 each");
    web.sim.state(&kept[0], "TASK_KILLED")?;
    lab.service_when("one is left in the other service", "/kept", |service| service.backends.len() == 1)?;
    web.sim.state(&web.tasks[0], "TASK_KILLED")?;
    // The sweep has ended when this is logged.
    web.agent.logs(&format!("is gone: {} sockets that were connected to it were reset", open[0]), 1, PATIENCE)?;
    // The replica itself still runs, so a socket that was not reset gets an answer.
    let mut reset = |name: &str| -> Result<u64> {
        let answers = (1..=4).map(|nth| client.tell(&format!("ask {name}{nth}"))).collect::<Result<Vec<_>>>()?;
        Ok(answers.iter().filter(|answer| !["a", "b"].contains(&answer.as_str())).count() as u64)
    };
    assert_eq!([reset("c")?, reset("k")?], [open[0], 0]);
    assert_eq!(web.agent.logged("were reset")?, 1, "{}", web.agent.log());
    Ok(())
}
