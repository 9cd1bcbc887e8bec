//! Names against a name server that does as it is told.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use hickory_resolver::config::NameServerConfig;
use tokio::net::UdpSocket;

use super::*;

/// What the name server says of every name: an address and its time to live, `None` for that there is no such name.
type Says = Option<([u8; 4], u32)>;

/// A name server, what it says, and how often it was asked. While it says nothing at all it is away.
struct Server {
    says: Arc<Mutex<Option<Says>>>,
    asked: Arc<Mutex<u32>>,
    config: ResolverConfig,
}

async fn server() -> Server {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut nameserver = NameServerConfig::udp(Ipv4Addr::LOCALHOST.into());
    nameserver.connections[0].port = socket.local_addr().unwrap().port();
    let config = ResolverConfig::from_name_servers(vec![nameserver]);
    let (says, asked) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(0)));
    let (its, count) = (Arc::clone(&says), Arc::clone(&asked));
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            *count.lock().unwrap() += 1;
            let says: Option<Says> = *its.lock().unwrap();
            let Some(says) = says else { continue };
            socket.send_to(&answer(&buffer[..length], says), from).await.unwrap();
        }
    });
    Server { says, asked, config }
}

/// The answer to a question, byte by byte.
fn answer(question: &[u8], says: Says) -> Vec<u8> {
    let name = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap();
    let is_a = question[name + 1..name + 3] == [0, 1];
    let mut answer = question[..name + 5].to_vec();
    // A response that is recursive and good, or that the name does not exist.
    (answer[2], answer[3]) = (0x81, if says.is_some() { 0x80 } else { 0x83 });
    answer[6..12].fill(0);
    if let Some((address, ttl)) = says.filter(|_| is_a) {
        answer[7] = 1;
        answer.extend([0xc0, 12, 0, 1, 0, 1]);
        answer.extend(ttl.to_be_bytes());
        answer.extend([0, 4]);
        answer.extend(address);
    }
    answer
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn an_address_is_used_for_as_long_as_its_name_server_says_within_bounds() {
    let server = server().await;
    let mut resolver = Resolver { servers: Some(server.config.clone()), ..Resolver::default() };
    let names = names(&["a1.example."]);
    for (ttl, least, most) in [(60, 58, 60), (0, 4, 5), (86_400, 298, 300)] {
        *server.says.lock().unwrap() = Some(Some(([192, 0, 2, 1], ttl)));
        assert_eq!(resolver.resolve(&names).await["a1.example."], Ok([192, 0, 2, 1].into()));
        let asked = *server.asked.lock().unwrap();
        assert_eq!(resolver.resolve(&names).await["a1.example."], Ok([192, 0, 2, 1].into()));
        assert_eq!(*server.asked.lock().unwrap(), asked, "asked again at once");
        let entry = resolver.known.get_mut("a1.example.").unwrap();
        let fresh = entry.again.saturating_duration_since(Instant::now()).as_secs();
        assert!((least..=most).contains(&fresh), "{ttl}: {fresh}");
        entry.again = Instant::now();
    }
    *server.says.lock().unwrap() = Some(Some(([192, 0, 2, 9], 60)));
    assert_eq!(resolver.resolve(&names).await["a1.example."], Ok([192, 0, 2, 9].into()));
}

#[tokio::test]
async fn a_known_address_outlives_its_name_server_and_even_its_name() {
    let server = server().await;
    let mut resolver = Resolver { servers: Some(server.config.clone()), ..Resolver::default() };
    let names = names(&["a1.example."]);
    *server.says.lock().unwrap() = Some(Some(([192, 0, 2, 1], 60)));
    resolver.resolve(&names).await["a1.example."].clone().unwrap();
    for says in [None, Some(None)] {
        *server.says.lock().unwrap() = says;
        resolver.known.get_mut("a1.example.").unwrap().again = Instant::now();
        let begin = Instant::now();
        assert_eq!(resolver.resolve(&names).await["a1.example."], Ok([192, 0, 2, 1].into()));
        assert!(begin.elapsed() < TIMEOUT, "{:?}", begin.elapsed());
        assert!(resolver.known["a1.example."].again > Instant::now(), "asked again at once");
    }
}

#[tokio::test]
async fn a_name_without_an_address_is_said_and_costs_only_itself() {
    let server = server().await;
    let mut resolver = Resolver { servers: Some(server.config.clone()), ..Resolver::default() };
    *server.says.lock().unwrap() = Some(None);
    let found = resolver.resolve(&names(&["gone.example.", "not a name \u{7f}..", "localhost"])).await;
    assert!(found["gone.example."].as_ref().is_err_and(|reason| reason.contains("no such name")), "{found:?}");
    assert!(found["not a name \u{7f}.."].is_err());
    assert_eq!(found["localhost"], Ok(Ipv4Addr::LOCALHOST.into()));
    assert_eq!(resolver.resolve(&names(&["localhost"])).await.len(), 1);
}
