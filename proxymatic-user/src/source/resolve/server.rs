//! A name server for tests, with answers that a test sets.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use tokio::net::UdpSocket;

use super::Resolver;

/// The answer for every name: an address and its time to live in seconds, or `None` if the name does not exist.
pub(crate) type Reply = Option<([u8; 4], u32)>;

/// A name server. It is down while it has no reply at all.
pub(crate) struct Server {
    /// The reply to every query.
    pub(crate) reply: Arc<Mutex<Option<Reply>>>,
    /// The number of queries so far.
    pub(crate) queries: Arc<Mutex<u32>>,
    config: ResolverConfig,
}

impl Server {
    /// Returns a resolver that queries only this server.
    pub(crate) fn resolver(&self) -> Resolver {
        Resolver { servers: Some(self.config.clone()), ..Resolver::default() }
    }
}

pub(crate) async fn server() -> Server {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut nameserver = NameServerConfig::udp(Ipv4Addr::LOCALHOST.into());
    nameserver.connections[0].port = socket.local_addr().unwrap().port();
    let config = ResolverConfig::from_name_servers(vec![nameserver]);
    let (reply, queries) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(0)));
    let (its, count) = (Arc::clone(&reply), Arc::clone(&queries));
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            *count.lock().unwrap() += 1;
            let reply: Option<Reply> = *its.lock().unwrap();
            let Some(reply) = reply else { continue };
            socket.send_to(&answer(&buffer[..length], reply), from).await.unwrap();
        }
    });
    Server { reply, queries, config }
}

/// Returns the bytes of the answer to a question.
fn answer(question: &[u8], reply: Reply) -> Vec<u8> {
    let name = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap();
    let is_a = question[name + 1..name + 3] == [0, 1];
    let mut answer = question[..name + 5].to_vec();
    // The flags of a recursive response, and the code for success or for a name that does not exist.
    (answer[2], answer[3]) = (0x81, if reply.is_some() { 0x80 } else { 0x83 });
    answer[6..12].fill(0);
    if let Some((address, ttl)) = reply.filter(|_| is_a) {
        answer[7] = 1;
        answer.extend([0xc0, 12, 0, 1, 0, 1]);
        answer.extend(ttl.to_be_bytes());
        answer.extend([0, 4]);
        answer.extend(address);
    }
    answer
}
