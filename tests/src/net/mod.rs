//! Network namespaces that this process makes and removes. The machine's own namespace is always refused.

mod switch;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};

pub use self::switch::{
    Network, Switch, address_on, address6_on, cable, ethtool, give_addresses, host_address, host_address6, interface,
    like_a_card,
};
use crate::cleanup::Guard;

/// The folder of `ip netns` names.
pub(crate) const RUN: &str = "/run/netns";

/// A named network namespace with `lo` up and forwarding off; dropping it deletes the name.
#[derive(Debug)]
pub struct NetNs {
    name: String,
    _guard: Guard,
}

impl NetNs {
    /// Makes a namespace of this name, which must be new.
    pub fn create(name: &str) -> Result<Self> {
        check(name)?;
        let doomed = path(name);
        let (guard, ()) = Guard::new(|| ip(&["netns", "add", name]), move || remove(&doomed))?;
        let namespace = Self { name: name.to_owned(), _guard: guard };
        namespace.ip(&["link", "set", "lo", "up"])?;
        // A new namespace inherits both settings from the first one, in which Docker turns forwarding on.
        namespace.sysctl("net/ipv4/ip_forward", "0")?;
        namespace.sysctl("net/ipv6/conf/all/forwarding", "0")?;
        Ok(namespace)
    }

    /// The name, as `ip -n` takes it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file, as `nsenter --net=` takes it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        path(&self.name)
    }

    /// Runs `ip` on this namespace.
    pub fn ip(&self, arguments: &[&str]) -> Result<()> {
        ip(&[&["-n", &self.name], arguments].concat())
    }

    /// Writes a setting under /proc/sys, as this namespace sees it.
    pub fn sysctl(&self, setting: &str, value: &str) -> Result<()> {
        let file = Path::new("/proc/sys").join(setting);
        self.enter(|| fs::write(&file, value))?.with_context(|| format!("write {value} to {}", file.display()))
    }

    /// Runs `work` on a thread inside this namespace: its sockets belong to the namespace, its mounts are the
    /// machine's.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let namespace = self.open()?;
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET).context("setns")?;
                ensure!(
                    inode("/proc/thread-self/ns/net")? != inode("/proc/self/ns/net")?,
                    "still in the machine's namespace"
                );
                Ok(work())
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
        .with_context(|| format!("enter namespace {}", self.name))
    }

    /// Returns a command that will run inside; add program and arguments.
    ///
    /// Not by `ip netns exec`, which would hide cgroups and pins under a new /sys.
    pub fn command(&self) -> Result<Command> {
        self.open()?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--");
        Ok(command)
    }

    fn open(&self) -> Result<File> {
        let file = File::open(self.path()).with_context(|| format!("open namespace {}", self.name))?;
        ensure!(file.metadata()?.ino() != inode("/proc/self/ns/net")?, "{} is the machine's own namespace", self.name);
        Ok(file)
    }
}

/// Deletes a namespace by its file. A missing one is fine.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).context("a namespace without a name")?;
    check(name)?;
    if path.exists() { ip(&["netns", "delete", name]) } else { Ok(()) }
}

/// With an empty or unusual name, `ip` could fall back to the machine's own namespace.
fn check(name: &str) -> Result<()> {
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    ensure!(
        !name.is_empty() && !name.starts_with('-') && name.chars().all(plain),
        "not a name for a namespace: {name:?}"
    );
    Ok(())
}

fn path(name: &str) -> PathBuf {
    Path::new(RUN).join(name)
}

fn inode(path: &str) -> Result<u64> {
    Ok(fs::metadata(path).with_context(|| format!("stat {path}"))?.ino())
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow!("`ip` is not installed (Debian: apt-get install iproute2)"),
        _ => anyhow!(error).context("run ip"),
    })?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), said.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_special_characters_are_refused_before_ip_runs() {
        for name in ["", "-n", "a/b", "..", "a b", "Ä"] {
            assert!(check(name).is_err(), "{name:?}");
        }
        assert!(check("proxymatic-lab-1-0-h1").is_ok());
    }
}
