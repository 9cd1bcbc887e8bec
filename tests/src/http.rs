//! A minimal HTTP/1.1 client for tests: one request, the whole response, the end of the connection.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// An `http://` URL with a resolved address: there is no DNS, and `localhost` is 127.0.0.1.
#[derive(Debug, Clone)]
pub struct Url {
    /// The address to connect to.
    pub address: SocketAddr,
    /// The value of `Host:`.
    pub host: String,
    /// Path and query.
    pub path: String,
}

/// A response, read to the end of the connection.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

impl Url {
    /// A path on an address.
    #[must_use]
    pub fn new(address: SocketAddr, path: &str) -> Self {
        Self { address, host: address.to_string(), path: path.to_owned() }
    }
}

impl std::str::FromStr for Url {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let rest = text.strip_prefix("http://").with_context(|| format!("{text:?} does not start with http://"))?;
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let with_port = if host.parse::<SocketAddr>().is_ok() || host.contains(':') {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let address = match with_port.strip_prefix("localhost:") {
            Some(port) => port.parse().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).ok(),
            None => with_port.parse().ok(),
        };
        let address =
            address.with_context(|| format!("{host:?} is neither localhost nor an IP address, with a port"))?;
        Ok(Self {
            address,
            host: host.to_owned(),
            path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
        })
    }
}

/// Sends one request on a new connection and reads until the server closes. A body of the wrong length is an error.
pub fn exchange(stream: &mut TcpStream, method: &str, url: &Url, body: &str) -> io::Result<Reply> {
    let Url { host, path, .. } = url;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::with_capacity(512);
    stream.read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "not a whole HTTP answer"))
}

/// Sends one request to a control endpoint, on a connection of its own. A status other than 2xx is an error.
pub fn call(method: &str, url: &Url, body: &str) -> Result<String> {
    let patience = Duration::from_secs(30);
    let whither = || format!("{method} http://{}{}", url.host, url.path);
    let mut stream = TcpStream::connect_timeout(&url.address, patience).with_context(whither)?;
    stream.set_read_timeout(Some(patience))?;
    let reply = exchange(&mut stream, method, url, body).with_context(whither)?;
    ensure!((200..300).contains(&reply.status), "{}: status {}: {}", whither(), reply.status, reply.body.trim());
    Ok(reply.body)
}

fn parse(answer: &[u8]) -> Option<Reply> {
    let (head, body) = std::str::from_utf8(answer).ok()?.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length =
        lines.filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let whole = length.is_none_or(|(_, length)| length.trim().parse() == Ok(body.len()));
    whole.then(|| Reply { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_connected_to_without_dns() {
        let url: Url = "http://localhost:1234".parse().unwrap();
        assert_eq!((url.address, url.path.as_str()), (([127, 0, 0, 1], 1234).into(), "/"));
        let url: Url = "http://[::1]:80/a?b=c".parse().unwrap();
        assert_eq!((url.address.to_string().as_str(), url.path.as_str()), ("[::1]:80", "/a?b=c"));
        assert!("http://example.org:80/".parse::<Url>().is_err());
        assert!("localhost:1234".parse::<Url>().is_err());
    }

    #[test]
    fn truncated_response_is_an_error() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na\n";
        assert_eq!(parse(whole).unwrap().body, "a\n");
        assert!(parse(&whole[..whole.len() - 1]).is_none());
        assert!(parse(b"HTTP/1.1 200 OK\r\n").is_none());
        assert!(parse(b"").is_none());
    }
}
