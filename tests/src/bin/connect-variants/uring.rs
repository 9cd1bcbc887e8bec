//! io_uring: the kernel connects and sends outside the system call, on request in a thread of its own.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::{mem, ptr};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fd, Timespec};
use io_uring::{IoUring, opcode};
use nix::libc;
use nix::sys::socket::{SockaddrLike as _, SockaddrStorage};
use proxymatic_tests::eventually::PATIENCE;
use rustix::net::SocketType;

use crate::{
    attempt::{Answer, Attempt, Outcome, QUESTION, at, text},
    stream::{answer, finish as end_connect},
};

/// Marks the completion of the operation, as opposed to that of its timeout.
const OPERATION: u64 = 1;

/// IORING_OP_CONNECT and IORING_OP_SEND; with `in_thread`, the connect runs in a kernel thread from the start.
pub(crate) fn stream(attempt: &Attempt, in_thread: bool) -> Outcome {
    let mut ring = at("ring", IoUring::new(4))?;
    let stream = TcpStream::from(attempt.socket(SocketType::STREAM, None)?);
    let to = SockaddrStorage::from(attempt.to);
    let connect = opcode::Connect::new(Fd(stream.as_raw_fd()), to.as_ptr(), to.len()).build();
    let connect = if in_thread { connect.flags(Flags::ASYNC) } else { connect };
    // SAFETY: the address lives until the operation is over.
    match unsafe { finish(&mut ring, &connect) } {
        // Old kernels (5.10 for one) do not wait on a nonblocking socket.
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => at("connect", end_connect(attempt, &stream))?,
        outcome => drop(at("connect", outcome)?),
    }
    let send = opcode::Send::new(Fd(stream.as_raw_fd()), QUESTION.as_ptr(), QUESTION.len() as u32).build();
    // SAFETY: the question is static.
    at("write", unsafe { finish(&mut ring, &send) })?;
    answer(attempt, stream)
}

/// IORING_OP_SENDMSG and IORING_OP_RECVMSG on an unconnected socket.
pub(crate) fn datagram(attempt: &Attempt) -> Outcome {
    let mut ring = at("ring", IoUring::new(4))?;
    let socket = attempt.socket(SocketType::DGRAM, None)?;
    attempt.hear_of_closed_ports(&socket)?;
    let to = SockaddrStorage::from(attempt.to);
    let mut question = QUESTION.to_vec();
    let mut part = libc::iovec { iov_base: question.as_mut_ptr().cast(), iov_len: question.len() };
    let mut message = message(&mut part);
    message.msg_name = to.as_ptr().cast_mut().cast();
    message.msg_namelen = to.len();
    let send = opcode::SendMsg::new(Fd(socket.as_raw_fd()), &raw const message).build();
    // SAFETY: message, address and buffer live until the operation is over.
    at("send", unsafe { finish(&mut ring, &send) })?;
    let (word, from) = at("receive", receive(&mut ring, &socket))?;
    Ok(Answer { word, peer: None, from: [from, None] })
}

fn receive(ring: &mut IoUring, socket: &OwnedFd) -> io::Result<(String, Option<SocketAddr>)> {
    let mut buffer = [0_u8; 64];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: integers, of which zero is a value.
    let mut sender: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let mut message = message(&mut part);
    message.msg_name = (&raw mut sender).cast();
    message.msg_namelen = size_of::<libc::sockaddr_storage>() as u32;
    let receive = opcode::RecvMsg::new(Fd(socket.as_raw_fd()), &raw mut message).build();
    // SAFETY: message, sender and buffer live until the operation is over.
    let length = unsafe { finish(ring, &receive) }?;
    // SAFETY: the kernel has filled in as much of it as it says.
    let sender = unsafe { SockaddrStorage::from_raw((&raw const sender).cast(), Some(message.msg_namelen)) };
    let v4 = sender.as_ref().and_then(|it| it.as_sockaddr_in()).map(|it| SocketAddr::from((it.ip(), it.port())));
    let v6 = sender.as_ref().and_then(|it| it.as_sockaddr_in6()).map(|it| SocketAddr::from((it.ip(), it.port())));
    Ok((text(&buffer[..length]), v4.or(v6)))
}

fn message(part: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: integers and pointers, of which zero is a value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = ptr::from_mut(part);
    message.msg_iovlen = 1;
    message
}

/// Waits for one operation, which the kernel cancels after a timeout.
///
/// # Safety
/// The operation's pointers must stay valid until this returns.
unsafe fn finish(ring: &mut IoUring, operation: &Entry) -> io::Result<usize> {
    let patience = Timespec::from(PATIENCE);
    let operation = operation.clone().flags(Flags::IO_LINK).user_data(OPERATION);
    let entries = [operation, opcode::LinkTimeout::new(&raw const patience).build()];
    // SAFETY: as the caller promises; and the time lives until both are over.
    unsafe { ring.submission().push_multiple(&entries) }.map_err(io::Error::other)?;
    ring.submit_and_wait(entries.len())?;
    // Both completions are taken out; a remaining one would be taken for that of the next operation.
    let ended: Vec<_> = ring.completion().collect();
    let result = ended.iter().find(|done| done.user_data() == OPERATION).map(|done| done.result());
    match result.ok_or_else(|| io::Error::other("no completion"))? {
        given_up if given_up == -libc::ECANCELED => Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)),
        result => usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result)),
    }
}
