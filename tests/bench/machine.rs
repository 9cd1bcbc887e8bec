//! The machine of a measurement, without which its numbers mean nothing.

use std::{fs, process::Command};

use serde::{Deserialize, Serialize};

/// A machine and its software.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The model of its CPUs.
    pub(crate) cpu: String,
    /// The number of its CPUs.
    pub(crate) cpus: usize,
    /// Its memory, in MB.
    pub(crate) memory_mb: u64,
    /// The release of its kernel.
    pub(crate) kernel: String,
    /// Its distribution.
    pub(crate) system: String,
    /// Whether it is virtual, if it can be detected.
    pub(crate) hypervisor: bool,
    /// The commit that was measured.
    pub(crate) commit: String,
}

impl Machine {
    /// Returns the machine that this runs on.
    pub(crate) fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = info.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map_or_else(String::new, |(_, value)| value.trim().to_owned())
        };
        let memory = read("/proc/meminfo");
        let kilobytes = memory.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
        let release = read("/etc/os-release");
        let system = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        let commit = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
        Self {
            cpu: field("model name"),
            cpus: info.lines().filter(|line| line.starts_with("processor")).count(),
            memory_mb: kilobytes.unwrap_or(0) / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            system: system.unwrap_or("unknown").trim_matches('"').to_owned(),
            hypervisor: field("flags").split(' ').any(|flag| flag == "hypervisor"),
            commit: commit.map_or_else(|_| String::new(), |it| String::from_utf8_lossy(&it.stdout).trim().to_owned()),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cpu, cpus, memory_mb, kernel, system, hypervisor, commit } = self;
        let kind = if *hypervisor { "virtual machine, " } else { "" };
        write!(f, "{kind}{cpus} x {cpu}, {memory_mb} MB, Linux {kernel}, {system}; commit {commit}")
    }
}
