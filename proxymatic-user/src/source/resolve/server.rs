//! A name server for tests, which does as it is told.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use tokio::net::UdpSocket;

use super::Resolver;

/// What the name server says of every name: an address and its time to live, `None` for that there is no such name.
pub(crate) type Says = Option<([u8; 4], u32)>;

/// A name server, what it says, and how often it was asked. While it says nothing at all it is away.
pub(crate) struct Server {
    pub(crate) says: Arc<Mutex<Option<Says>>>,
    pub(crate) asked: Arc<Mutex<u32>>,
    config: ResolverConfig,
}

impl Server {
    /// One that asks nobody else.
    pub(crate) fn resolver(&self) -> Resolver {
        Resolver { servers: Some(self.config.clone()), ..Resolver::default() }
    }
}

pub(crate) async fn server() -> Server {
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
