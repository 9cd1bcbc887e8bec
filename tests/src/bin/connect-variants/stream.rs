//! The ways that only TCP has: connect and then send, data in the SYN, and several paths.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use proxymatic_tests::eventually::{PATIENCE, uninterrupted};
use rustix::event::PollFlags;
use rustix::net::{Protocol, SendFlags, SocketType, connect, sendto};

use crate::attempt::{Answer, Attempt, Outcome, QUESTION, at, text};

/// connect(2), then the request.
pub(crate) fn connected(attempt: &Attempt, protocol: Option<Protocol>) -> Outcome {
    let mut stream = TcpStream::from(attempt.socket(SocketType::STREAM, protocol)?);
    at("connect", begin_and_finish(attempt, &stream))?;
    at("write", stream.write_all(QUESTION))?;
    answer(attempt, stream)
}

/// sendto(2) with MSG_FASTOPEN, which connects and sends in one call.
pub(crate) fn fast_open(attempt: &Attempt) -> Outcome {
    let stream = TcpStream::from(attempt.socket(SocketType::STREAM, None)?);
    let at_once = SendFlags::from_bits_retain(libc::MSG_FASTOPEN.unsigned_abs());
    match sendto(&stream, QUESTION, at_once, &attempt.to) {
        // The SYN was sent without data, because there is no cookie yet.
        Err(errno) if errno == rustix::io::Errno::INPROGRESS => {
            at("connect", finish(attempt, &stream))?;
            at("write", (&stream).write_all(QUESTION))?;
        }
        sent => drop(at("connect", sent)?),
    }
    answer(attempt, stream)
}

/// connect(2) with TCP_FASTOPEN_CONNECT, which delays the SYN until the first write.
pub(crate) fn fast_open_connect(attempt: &Attempt) -> Outcome {
    let mut stream = TcpStream::from(attempt.socket(SocketType::STREAM, None)?);
    at("option", setsockopt(&stream, sockopt::TcpFastOpenConnect, &true))?;
    at("connect", connect(&stream, &attempt.to))?;
    at("write", stream.write_all(QUESTION))?;
    answer(attempt, stream)
}

/// Reads the answer to a request that was sent.
pub(crate) fn answer(attempt: &Attempt, mut stream: TcpStream) -> Outcome {
    let mut buffer = [0; 64];
    at("timeout", stream.set_read_timeout(Some(PATIENCE)))?;
    at("read", attempt.ready(&stream, PollFlags::IN))?;
    // Pending work of an io_uring interrupts unrelated calls.
    let length = at("read", uninterrupted(|| stream.read(&mut buffer)))?;
    let peer = at("peer", stream.peer_addr())?;
    Ok(Answer { word: text(&buffer[..length]), peer: Some(peer), from: [None, None] })
}

fn begin_and_finish(attempt: &Attempt, stream: &TcpStream) -> io::Result<()> {
    match connect(stream, &attempt.to) {
        Err(errno) if errno == rustix::io::Errno::INPROGRESS => finish(attempt, stream),
        outcome => outcome.map_err(io::Error::from),
    }
}

/// Waits for the end of a nonblocking connect.
pub(crate) fn finish(attempt: &Attempt, stream: &TcpStream) -> io::Result<()> {
    if !attempt.nonblocking {
        return Err(Errno::EINPROGRESS.into());
    }
    attempt.ready(stream, PollFlags::OUT)?;
    stream.take_error()?.map_or(Ok(()), Err)
}
