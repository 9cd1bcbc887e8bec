//! Programs and links as the kernel reports them, read with bpftool, which is independent of this project.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::net::NetNs;
use serde_json::Value;

/// Returns the names of the programs attached to a cgroup, without those of its parents.
pub(crate) fn attached(cgroup: &Path) -> Result<Vec<String>> {
    let mut command = Command::new("bpftool");
    command.args(["--json", "cgroup", "show"]).arg(cgroup);
    let said = run(command)?;
    // bpftool prints nothing if nothing is attached.
    let rows: Vec<Value> = if said.trim().is_empty() { Vec::new() } else { serde_json::from_str(&said)? };
    rows.iter().map(|row| Ok(row["name"].as_str().context("no name")?.to_owned())).collect()
}

/// Whether the kernel has a `prog` or a `link` with this id.
pub(crate) fn exists(kind: &str, id: u64) -> Result<bool> {
    let mut command = Command::new("bpftool");
    let output = command.args([kind, "show", "id", &id.to_string()]).output().context(MISSING)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() || said.contains("No such file"), "bpftool: {said}");
    Ok(output.status.success())
}

/// Returns the kernel's tag (a hash) of a program's instructions.
pub(crate) fn tag(program: u64) -> Result<String> {
    let mut command = Command::new("bpftool");
    command.args(["--json", "prog", "show", "id", &program.to_string()]);
    let said: Value = serde_json::from_str(&run(command)?)?;
    Ok(said["tag"].as_str().context("no tag")?.to_owned())
}

/// Detaches a link by force, as a foreign program may.
pub(crate) fn detach(link: u64) -> Result<()> {
    let mut command = Command::new("bpftool");
    command.args(["link", "detach", "id", &link.to_string()]);
    run(command).map(drop)
}

/// Attaches a pinned program to a hook of a cgroup without the flag `multi`, so child cgroups can have no program
/// there.
pub(crate) fn attach_alone(cgroup: &Path, hook: &str, program: &Path) -> Result<()> {
    let mut command = Command::new("bpftool");
    command.args(["cgroup", "attach"]).arg(cgroup).args([hook, "pinned"]).arg(program);
    run(command).map(drop)
}

/// Creates an array map with this many entries and pins it.
pub(crate) fn pin_map(path: &Path, name: &str, value: u32, entries: u32) -> Result<()> {
    let (value, entries) = (value.to_string(), entries.to_string());
    let mut command = Command::new("bpftool");
    command.args(["map", "create"]).arg(path);
    command.args(["type", "array", "key", "4", "value", &value, "entries", &entries, "name", name]);
    run(command).map(drop)
}

/// Returns the number of entries of a pinned map.
pub(crate) fn entries(pin: &Path) -> Result<usize> {
    let mut command = Command::new("bpftool");
    command.args(["--json", "map", "dump", "pinned"]).arg(pin);
    Ok(serde_json::from_str::<Vec<Value>>(&run(command)?)?.len())
}

/// Returns what is attached to the interfaces of a namespace and to the namespace itself.
pub(crate) fn on_interfaces(net: &NetNs) -> Result<Vec<Value>> {
    let mut command = net.command()?;
    command.args(["bpftool", "--json", "net", "show"]);
    let by_kind: Vec<BTreeMap<String, Vec<Value>>> = serde_json::from_str(&run(command)?)?;
    Ok(by_kind.into_iter().flat_map(BTreeMap::into_values).flatten().collect())
}

const MISSING: &str = "run bpftool (Debian: apt-get install bpftool)";

fn run(mut command: Command) -> Result<String> {
    let output = command.output().context(MISSING)?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
