//! One UDP socket with several services: every reply has the address of its service.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, SocketProgram};

use crate::fixtures::word_replicas::{At, WordReplicas, WordService};

/// Six services with one replica each.
const SIX: [WordService; 6] = [
    WordService { app: "/a", port: 1001, replicas: &[(At::V4(2, 8001), "a")] },
    WordService { app: "/b", port: 1002, replicas: &[(At::V4(2, 8002), "b")] },
    WordService { app: "/c", port: 1003, replicas: &[(At::V4(2, 8003), "c")] },
    WordService { app: "/d", port: 1004, replicas: &[(At::V4(2, 8004), "d")] },
    WordService { app: "/e", port: 1005, replicas: &[(At::V4(2, 8005), "e")] },
    WordService { app: "/f", port: 1006, replicas: &[(At::V4(2, 8006), "f")] },
];

#[test]
fn six_services_on_one_socket_each_reply_from_own_address() -> TestResult {
    let lab = Lab::start(2)?;
    let _six = WordReplicas::start(&lab, &SIX, &[])?;
    let mut client = opened(&lab)?;
    for round in 0..50 {
        // All requests are sent before the first reply is read, in another order each time.
        for nth in 0..SIX.len() {
            let port = SIX[(round + nth) % SIX.len()].port;
            assert_eq!(client.tell(&format!("sendto c 127.0.0.1:{port}"))?, "ok");
        }
        let mut heard = BTreeMap::new();
        for _ in SIX {
            let said = client.tell("receive c")?;
            let (word, from) = said.split_once(' ').context(said.clone())?;
            heard.insert(word.to_owned(), from.parse::<SocketAddr>()?);
        }
        for service in SIX {
            let from = heard.get(service.replicas[0].1).map(SocketAddr::to_string);
            assert_eq!(from, Some(format!("127.0.0.1:{}", service.port)), "round {round}: {heard:?}");
        }
    }
    // For any number of datagrams: one socket, one backend of each service.
    assert_eq!(open_and_ever(&lab)?, (6, 6));
    assert_eq!(client.tell("close c")?, "ok");
    assert_eq!(open_and_ever(&lab)?, (0, 6));
    Ok(())
}

#[test]
fn services_sharing_a_backend_reply_as_the_last_sent_to() -> TestResult {
    const SHARED: &[(At, &str)] = &[(At::V4(2, 8001), "shared")];
    let services = [
        WordService { app: "/one", port: 1001, replicas: SHARED },
        WordService { app: "/two", port: 1002, replicas: SHARED },
    ];
    let lab = Lab::start(2)?;
    let _two = WordReplicas::start(&lab, &services, &[])?;
    let mut client = opened(&lab)?;
    for port in [1001, 1002, 1001, 1001, 1002] {
        assert_eq!(client.tell(&format!("askto c 127.0.0.1:{port}"))?, format!("shared 127.0.0.1:{port}"));
    }
    // Both are in flight, and nothing in the replies tells them apart, as documented.
    for port in [1001, 1002] {
        assert_eq!(client.tell(&format!("sendto c 127.0.0.1:{port}"))?, "ok");
    }
    for _ in 0..2 {
        assert_eq!(client.tell("receive c")?, "shared 127.0.0.1:1002");
    }
    Ok(())
}

#[test]
fn reconnected_udp_socket_is_counted_at_the_last_service() -> TestResult {
    let lab = Lab::start(2)?;
    let _six = WordReplicas::start(&lab, &SIX, &[])?;
    let mut client = opened(&lab)?;
    for (nth, service) in SIX.iter().chain(&SIX).enumerate() {
        let destination = format!("127.0.0.1:{}", service.port);
        assert_eq!(client.tell(&format!("connect c {destination}"))?, "ok");
        assert_eq!(client.tell("peer c")?, destination);
        assert_eq!(client.tell("ask c")?, service.replicas[0].1);
        assert_eq!(open_and_ever(&lab)?, (1, nth as u64 + 1));
    }
    assert_eq!(client.tell("close c")?, "ok");
    assert_eq!(open_and_ever(&lab)?, (0, 12));
    Ok(())
}

#[test]
fn shared_udp_socket_is_counted_once_until_the_last_close() -> TestResult {
    let lab = Lab::start(2)?;
    let _six = WordReplicas::start(&lab, &SIX[..1], &[])?;
    let mut client = opened(&lab)?;
    assert_eq!(client.tell("connect c 127.0.0.1:1001")?, "ok");
    for order in ["dup c d", "lend c child", "close c"] {
        assert_eq!(client.tell(order)?, "ok");
        assert_eq!(open_and_ever(&lab)?, (1, 1), "{order}");
    }
    assert_eq!(client.tell("ask d")?, "a");
    assert_eq!(client.tell("peer d")?, "127.0.0.1:1001");
    assert_eq!(client.tell("close d")?, "ok");
    assert_eq!(open_and_ever(&lab)?, (1, 1));
    assert_eq!(client.tell("close child")?, "ok");
    assert_eq!(open_and_ever(&lab)?, (0, 1));
    Ok(())
}

/// Starts a program with one socket, `c`, that is neither bound nor connected.
fn opened(lab: &Lab) -> Result<SocketProgram> {
    let mut client = lab.host(1).datagrams_in(lab.host(1).cgroup())?;
    ensure!(client.tell("open c")? == "ok", "no socket");
    Ok(client)
}

/// Returns the connections open now and ever, over all services.
fn open_and_ever(lab: &Lab) -> Result<(u64, u64)> {
    let backends: Vec<_> = lab.host(1).services()?.into_iter().flat_map(|service| service.backends).collect();
    Ok((backends.iter().map(|it| it.active).sum(), backends.iter().map(|it| it.total).sum()))
}
