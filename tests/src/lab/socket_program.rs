//! A program on a host that does with sockets what a test tells it, step by step.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Host, PATIENCE, binary};
use crate::cgroup::Cgroup;
use crate::eventually::eventually_ok;
use crate::process::Process;

/// A running `tcp-client`: see there for its orders. Its sockets belong to the host's cgroup, and end with it.
#[derive(Debug)]
pub struct SocketProgram {
    process: Process,
    answers: usize,
}

impl Host {
    /// Starts a program that does with sockets what it is told.
    pub fn tcp_client(&self) -> Result<SocketProgram> {
        self.tcp_client_in(self.cgroup())
    }

    /// Starts any program in a cgroup that answers each line it is told with one.
    pub fn program_in(&self, cgroup: &Cgroup, program: &Path, arguments: &[&str]) -> Result<SocketProgram> {
        Ok(SocketProgram { process: self.spawn_in(cgroup, program, arguments)?, answers: 0 })
    }

    /// The same in another cgroup, as a container has.
    pub fn tcp_client_in(&self, cgroup: &Cgroup) -> Result<SocketProgram> {
        Ok(SocketProgram { process: self.spawn_in(cgroup, &binary("tcp-client")?, &[])?, answers: 0 })
    }

    /// Starts a program in a cgroup that does with UDP sockets what it is told: see `datagrams` for its orders.
    pub fn datagrams_in(&self, cgroup: &Cgroup) -> Result<SocketProgram> {
        Ok(SocketProgram { process: self.spawn_in(cgroup, &binary("datagrams")?, &[])?, answers: 0 })
    }
}

impl SocketProgram {
    /// Gives an order and returns the answer: `ok`, what was asked for, or the name of an errno.
    pub fn tell(&mut self, order: &str) -> Result<String> {
        self.process.tell(order)?;
        let nth = self.answers;
        self.answers += 1;
        // An order may wait for the kernel that long itself, more than once.
        eventually_ok(&format!("an answer to {order:?}"), 3 * PATIENCE, || {
            let said = self.process.stdout()?;
            let whole = said.rsplit_once('\n').map_or("", |(lines, _)| lines);
            whole.lines().nth(nth).map(str::to_owned).with_context(|| self.process.log())
        })
    }

    /// Opens so many connections, called NAME1 and so on, and returns how each came out.
    pub fn hold(&mut self, name: &str, count: usize, to: SocketAddr) -> Result<Vec<String>> {
        (1..=count).map(|nth| self.tell(&format!("connect {name}{nth} {to}"))).collect()
    }

    /// Stops it without a chance to close anything (SIGKILL).
    pub fn kill9(mut self) -> Result<()> {
        self.process.kill9().map(drop)
    }
}
