//! When a backend goes, sockets that are connected to it are told, and no others, in whatever namespace they are.

use std::net::{Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::eventually::eventually;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Dialer, Lab, PATIENCE};
use proxymatic_tests::net::host_address6;
use proxymatic_user::dataplane::kernel::{Maps, Pins};
use serde_json::json;

use crate::answered::At;
use crate::served::{APP, PORT, SERVICE, Served, place};

/// A UDP service with replicas that answer `a` and `b`.
fn udp<'lab>(lab: &'lab Lab) -> Result<(Served<'lab>, Dialer)> {
    let web = Served::unready(lab, 2, json!({ "protocol": "udp" }))?;
    let mut servers = lab.host(2).datagrams_in(lab.host(2).cgroup())?;
    for (replica, word) in web.replicas.iter().zip(["a", "b"]) {
        ensure!(servers.tell(&format!("serve {} {word}", replica.address))? == "ok", "{} is taken", replica.address);
    }
    web.when_active(&[0, 1])?;
    Ok((web, servers))
}

/// Which of the tasks a word stands for.
fn nth(word: &str) -> Result<usize> {
    ["a", "b"].iter().position(|known| *known == word).with_context(|| format!("{word:?} answered"))
}

#[test]
fn a_connected_udp_socket_whose_backend_goes_is_told_and_reaches_another_by_connecting_again() -> TestResult {
    let lab = Lab::start(2)?;
    let (web, _servers) = udp(&lab)?;
    // One in the agent's namespace, one in another as a container has.
    let (here, there) = (lab.host(1), lab.host(2));
    let address = format!("{}:{PORT}", here.address());
    let mut clients =
        [(here.datagrams_in(here.cgroup())?, SERVICE.to_string()), (there.datagrams_in(here.cgroup())?, address)];
    // The second namespace has not the first one's address: only what is dialled counts.
    let mut gone = None;
    for (client, dialled) in &mut clients {
        assert!(client.tell("open c")? == "ok");
        let first = loop {
            assert!(client.tell(&format!("connect c {dialled}"))? == "ok");
            let word = client.tell("ask c")?;
            if *gone.get_or_insert_with(|| word.clone()) == word {
                break word;
            }
        };
        assert!(client.tell("peer c")? == *dialled, "{first}");
    }
    let gone = gone.context("nobody answered")?;
    web.sim.state(&web.tasks[nth(&gone)?], "TASK_KILLED")?;
    for (client, dialled) in &mut clients {
        assert_eq!(client.tell("error c")?, "ECONNABORTED");
        assert_eq!(client.tell(&format!("connect c {dialled}"))?, "ok");
        let word = client.tell("ask c")?;
        assert!(nth(&word).is_ok() && word != gone, "{word}");
    }
    let log = web.agent.log();
    assert_eq!(log.matches("is gone: 2 sockets that were connected to it were reset").count(), 1, "{log}");
    Ok(())
}

#[test]
fn a_connected_ipv6_socket_whose_backend_goes_is_told() -> TestResult {
    // Backends of IPv6, and of IPv4, which such a socket is connected to by their v4-mapped addresses.
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
        // Of each client one socket to each backend.
        for (client, dialled) in &mut clients {
            for word in ["a", "b"] {
                assert_eq!(client.tell(&format!("open6 {word}"))?, "ok");
                while client
                    .tell(&format!("connect {word} {dialled}"))
                    .and_then(|_| client.tell(&format!("ask {word}")))?
                    != word
                {}
                assert_eq!(client.tell(&format!("peer {word}"))?, dialled.to_string());
            }
        }
        sim.state(&tasks[0], "TASK_KILLED")?;
        for (client, dialled) in &mut clients {
            assert_eq!(client.tell("error a")?, "ECONNABORTED");
            // The socket itself is as good as new.
            assert_eq!(client.tell(&format!("connect a {dialled}"))?, "ok");
            assert_eq!((client.tell("ask a")?.as_str(), client.tell("ask b")?.as_str()), ("b", "b"));
        }
        let log = agent.log();
        assert_eq!(log.matches("is gone: 2 sockets that were connected to it were reset").count(), 1, "{log}");
    }
    Ok(())
}

#[test]
fn an_unconnected_udp_socket_goes_on_with_its_port_when_its_backend_goes() -> TestResult {
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
fn a_udp_socket_that_is_connected_to_a_replica_by_itself_is_left_alone() -> TestResult {
    let lab = Lab::start(2)?;
    let (web, _servers) = udp(&lab)?;
    let mut client = lab.host(1).datagrams_in(lab.host(1).cgroup())?;
    let direct = web.replicas[0].address;
    for order in ["open told", "open direct", "open both"] {
        assert!(client.tell(order)? == "ok");
    }
    assert_eq!(client.tell(&format!("connect direct {direct}"))?, "ok");
    // Was sent there by us once, and is connected elsewhere now.
    while client.tell(&format!("connect both {SERVICE}")).and_then(|_| client.tell("ask both"))? != "a" {}
    assert_eq!(client.tell(&format!("connect both {}", web.replicas[1].address))?, "ok");
    while client.tell(&format!("connect told {SERVICE}")).and_then(|_| client.tell("ask told"))? != "a" {}
    web.sim.state(&web.tasks[0], "TASK_KILLED")?;
    assert_eq!(client.tell("error told")?, "ECONNABORTED");
    assert_eq!((client.tell("ask direct")?.as_str(), client.tell("ask both")?.as_str()), ("a", "b"));
    Ok(())
}

#[test]
fn tcp_connections_to_a_backend_that_is_gone_are_reset_only_where_that_is_asked_for() -> TestResult {
    for (labels, reset) in [(&[][..], false), (&[("on-backend-removed", "reset")][..], true)] {
        let lab = Lab::start(2)?;
        let web = Served::labelled(&lab, 2, labels)?;
        let mut client = lab.host(1).dialer()?;
        assert_eq!(client.hold("c", 4, SERVICE)?, ["ok"; 4]);
        let maps = Maps::open(&Pins::at(&lab.host(1).pins()))?;
        let tables = maps.tables()?;
        let task = |nth: usize| tables.backends().iter().find(|(_, entry)| entry.task == web.tasks[nth]);
        let doomed = *task(0).context("no such backend")?.0;
        let open = maps.load(doomed).map_or(0, |load| load.active());
        assert!((1..4).contains(&open), "{open} of 4");
        web.sim.state(&web.tasks[0], "TASK_KILLED")?;
        web.when_active(&[1])?;
        // The replica itself is still there: whoever was not reset has an answer.
        let answers = (1..=4).map(|nth| client.tell(&format!("ask c{nth}"))).collect::<Result<Vec<_>>>()?;
        let told = answers.iter().filter(|answer| !["a", "b"].contains(&answer.as_str())).count() as u64;
        assert_eq!(told, if reset { open } else { 0 }, "{answers:?}");
        if reset {
            let said = || web.agent.log().contains("were reset").then_some(());
            eventually("the agent says so", PATIENCE, said)?;
        } else {
            assert!(!web.agent.log().contains("were reset"));
        }
    }
    Ok(())
}
