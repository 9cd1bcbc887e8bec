//! The backends of a benchmark: one process that listens on many ports and answers each request with its port.
//!
//! A TCP request that begins with `C` is answered once and the connection closed, as by servers that close first; any
//! other request is taken for HTTP on a persistent connection. A datagram is answered with one. Commands come by
//! standard input.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    sync::mpsc::{self, Receiver},
    thread,
};

use anyhow::{Context as _, Result};
use mio::{
    Events, Interest, Poll, Registry, Token, Waker,
    net::{TcpListener, TcpStream, UdpSocket},
};

/// Answers on many ports until it is ended. Takes `open PORT` and `close PORT`, for TCP, and answers `ok`.
#[derive(Debug, clap::Parser)]
pub(crate) struct Answer {
    /// The address of all ports.
    #[arg(long)]
    address: Ipv4Addr,
    /// The first TCP port.
    #[arg(long, default_value_t = TCP)]
    tcp: u16,
    /// Number of TCP ports at the start.
    #[arg(long, default_value_t = 0)]
    tcp_ports: u16,
    /// The first UDP port.
    #[arg(long, default_value_t = UDP)]
    udp: u16,
    /// Number of UDP ports.
    #[arg(long, default_value_t = 0)]
    udp_ports: u16,
    /// Print a line once it listens. Programs that send commands wait for an answer to each.
    #[arg(long)]
    announce: bool,
}

/// The first TCP port of the backends.
pub(crate) const TCP: u16 = 30_000;
/// The first UDP port of the backends.
pub(crate) const UDP: u16 = 31_000;
/// The size of an answer that is not HTTP, and of its request, in bytes.
pub(crate) const MESSAGE: usize = 64;

/// Smaller tokens are connections; larger ones are listeners and UDP sockets by their port.
const PORTS: usize = 1 << 20;
const ORDERS: Token = Token(PORTS << 1);

struct Server {
    address: Ipv4Addr,
    poll: Poll,
    listeners: BTreeMap<u16, TcpListener>,
    sockets: BTreeMap<u16, UdpSocket>,
    /// Accepted connections by token, with their local port.
    open: Vec<Option<(TcpStream, u16)>>,
    free: Vec<usize>,
}

impl Answer {
    pub(crate) fn run(&self) -> Result<()> {
        let poll = Poll::new()?;
        let orders = orders(poll.registry())?;
        let mut server = Server {
            address: self.address,
            poll,
            listeners: BTreeMap::new(),
            sockets: BTreeMap::new(),
            open: Vec::new(),
            free: Vec::new(),
        };
        (0..self.tcp_ports).try_for_each(|n| server.open(self.tcp + n))?;
        (0..self.udp_ports).try_for_each(|n| server.bind(self.udp + n))?;
        if self.announce {
            println!("listening on {}", self.address);
        }
        let mut events = Events::with_capacity(256);
        loop {
            match server.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                done => done?,
            }
            for event in &events {
                match event.token() {
                    ORDERS => {
                        while let Ok(order) = orders.try_recv() {
                            server.order(&order)?;
                        }
                    }
                    Token(token) if token >= PORTS => server.port((token - PORTS) as u16),
                    Token(token) => server.answer(token),
                }
            }
        }
    }
}

/// Reads commands from standard input, line by line.
fn orders(registry: &Registry) -> Result<Receiver<String>> {
    let (tell, orders) = mpsc::channel();
    let waker = Waker::new(registry, ORDERS)?;
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if tell.send(line).is_err() || waker.wake().is_err() {
                return;
            }
        }
    });
    Ok(orders)
}

impl Server {
    fn order(&mut self, order: &str) -> Result<()> {
        match order.split_once(' ') {
            Some(("open", port)) => self.open(port.parse()?)?,
            Some(("close", port)) => drop(self.listeners.remove(&port.parse::<u16>()?)),
            _ => anyhow::bail!("cannot read {order:?}"),
        }
        println!("ok");
        Ok(())
    }

    fn open(&mut self, port: u16) -> Result<()> {
        let at = SocketAddr::from((self.address, port));
        let mut listener = TcpListener::bind(at).with_context(|| format!("listen on {at}"))?;
        self.poll.registry().register(&mut listener, Token(PORTS + usize::from(port)), Interest::READABLE)?;
        self.listeners.insert(port, listener);
        Ok(())
    }

    fn bind(&mut self, port: u16) -> Result<()> {
        let at = SocketAddr::from((self.address, port));
        let mut socket = UdpSocket::bind(at).with_context(|| format!("bind {at}"))?;
        self.poll.registry().register(&mut socket, Token(PORTS + usize::from(port)), Interest::READABLE)?;
        self.sockets.insert(port, socket);
        Ok(())
    }

    /// Handles an event at a port.
    fn port(&mut self, port: u16) {
        if let Some(socket) = self.sockets.get(&port) {
            let mut bytes = [0; MESSAGE];
            while let Ok((_, from)) = socket.recv_from(&mut bytes) {
                // The sender may be gone.
                let _ = socket.send_to(&message(port), from);
            }
        }
        while let Some(Ok((stream, _))) = self.listeners.get(&port).map(TcpListener::accept) {
            let token = self.free.pop().unwrap_or_else(|| {
                self.open.push(None);
                self.open.len() - 1
            });
            let (stream, _) = self.open[token].insert((stream, port));
            let registered = self.poll.registry().register(stream, Token(token), Interest::READABLE);
            match registered {
                Ok(()) => self.answer(token),
                Err(_) => self.close(token),
            }
        }
    }

    /// Answers the requests of a connection so far.
    fn answer(&mut self, token: usize) {
        let Some(Some((stream, port))) = self.open.get_mut(token) else { return };
        let mut bytes = [0; 2048];
        loop {
            match stream.read(&mut bytes) {
                Ok(0) => break,
                Ok(_) if bytes[0] == b'C' => {
                    let _ = stream.write(&message(*port));
                    break;
                }
                Ok(_) => {
                    if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        self.close(token);
    }

    fn close(&mut self, token: usize) {
        self.open[token] = None;
        self.free.push(token);
    }
}

/// Returns an answer: the port in digits, then blanks.
fn message(port: u16) -> [u8; MESSAGE] {
    let mut bytes = [b' '; MESSAGE];
    let digits = port.to_string();
    bytes[..digits.len()].copy_from_slice(digits.as_bytes());
    bytes
}
