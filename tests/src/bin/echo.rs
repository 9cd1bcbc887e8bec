//! An echo server for TCP and UDP with a name: the target of long transfers and large datagrams.
//!
//! It greets a connection with its name, one byte, and then echoes all data. A datagram returns with that byte in place
//! of its first one.
#![expect(clippy::print_stdout, reason = "a program's answer goes to stdout")]

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use anyhow::{Context as _, Result};
use clap::Parser;

/// Echoes all data until standard input is closed.
#[derive(Parser)]
struct Args {
    /// Address to listen on, for TCP and UDP; may be repeated.
    #[arg(long, value_name = "IP:PORT", required = true)]
    listen: Vec<SocketAddr>,
    /// The name: one letter.
    #[arg(long)]
    name: char,
}

/// The largest possible datagram.
const LARGEST: usize = 1 << 16;

fn main() -> Result<()> {
    let Args { listen, name } = Args::parse();
    let name = u8::try_from(name).context("the name is a letter of ASCII")?;
    for at in listen {
        let listener = TcpListener::bind(at).with_context(|| format!("listen on {at}"))?;
        let socket = UdpSocket::bind(at).with_context(|| format!("bind {at}"))?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || stay(stream, name));
            }
        });
        thread::spawn(move || datagrams(&socket, name));
    }
    println!("listening");
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

fn stay(mut stream: TcpStream, name: u8) -> io::Result<()> {
    stream.write_all(&[name])?;
    let mut buffer = vec![0; LARGEST];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length])?,
        }
    }
}

/// The error of an earlier reply whose receiver is gone.
fn datagrams(socket: &UdpSocket, name: u8) {
    let mut buffer = vec![0; LARGEST];
    loop {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            if let Some(first) = buffer.first_mut() {
                *first = name;
            }
            let _ = socket.send_to(&buffer[..length], from);
        }
    }
}
