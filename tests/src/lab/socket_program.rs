//! A program on a host that performs socket calls on a test's commands, one at a time.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::host::Host;
use crate::cgroup::Cgroup;
use crate::eventually::{PATIENCE, eventually_ok};
use crate::process::{Process, binary};

/// A running `tcp-client`, `datagrams` or similar program: see there for the commands. Its sockets belong to the host's
/// cgroup and close with it.
#[derive(Debug)]
pub struct SocketProgram {
    process: Process,
    answers: usize,
}

impl Host {
    /// Starts a `tcp-client`.
    pub fn tcp_client(&self) -> Result<SocketProgram> {
        self.tcp_client_in(self.cgroup())
    }

    /// Starts any program in a cgroup that answers each command line with one line.
    pub fn program_in(&self, cgroup: &Cgroup, program: &Path, arguments: &[&str]) -> Result<SocketProgram> {
        Ok(SocketProgram { process: self.spawn_in(cgroup, program, arguments)?, answers: 0 })
    }

    /// Starts a `tcp-client` in another cgroup, as a container has.
    pub fn tcp_client_in(&self, cgroup: &Cgroup) -> Result<SocketProgram> {
        Ok(SocketProgram { process: self.spawn_in(cgroup, &binary("tcp-client")?, &[])?, answers: 0 })
    }

    /// Starts a `datagrams` in a cgroup.
    pub fn datagrams_in(&self, cgroup: &Cgroup) -> Result<SocketProgram> {
        Ok(SocketProgram { process: self.spawn_in(cgroup, &binary("datagrams")?, &[])?, answers: 0 })
    }
}

impl SocketProgram {
    /// Sends a command and returns the answer: `ok`, the requested value, or the name of an errno.
    pub fn tell(&mut self, order: &str) -> Result<String> {
        self.process.tell(order)?;
        let nth = self.answers;
        self.answers += 1;
        // A command may itself wait that long for the kernel, more than once.
        eventually_ok(&format!("an answer to {order:?}"), 3 * PATIENCE, || {
            let said = self.process.stdout()?;
            let whole = said.rsplit_once('\n').map_or("", |(lines, _)| lines);
            whole.lines().nth(nth).map(str::to_owned).with_context(|| self.process.log())
        })
    }

    /// Opens this many connections, named NAME1 and so on, and returns the outcome of each.
    pub fn hold(&mut self, name: &str, count: usize, to: SocketAddr) -> Result<Vec<String>> {
        (1..=count).map(|nth| self.tell(&format!("connect {name}{nth} {to}"))).collect()
    }

    /// Kills it by SIGKILL, so that it closes nothing by itself.
    pub fn kill9(mut self) -> Result<()> {
        self.process.kill9().map(drop)
    }
}
