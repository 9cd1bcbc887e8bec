//! What the kernel itself says of programs and links, asked with bpftool, which knows nothing of us.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::net::NetNs;
use serde_json::Value;

/// The names of the programs attached to a cgroup, not counting its parents.
pub(crate) fn attached(cgroup: &Path) -> Result<Vec<String>> {
    let mut command = Command::new("bpftool");
    command.args(["--json", "cgroup", "show"]).arg(cgroup);
    let said = run(command)?;
    // It prints nothing at all where nothing is attached.
    let rows: Vec<Value> = if said.trim().is_empty() { Vec::new() } else { serde_json::from_str(&said)? };
    rows.iter().map(|row| Ok(row["name"].as_str().context("no name")?.to_owned())).collect()
}

/// Whether the kernel knows a `prog` or a `link` of that id.
pub(crate) fn exists(kind: &str, id: u64) -> Result<bool> {
    let mut command = Command::new("bpftool");
    let output = command.args([kind, "show", "id", &id.to_string()]).output().context(MISSING)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() || said.contains("No such file"), "bpftool: {said}");
    Ok(output.status.success())
}

/// The kernel's fingerprint of a program's instructions.
pub(crate) fn tag(program: u64) -> Result<String> {
    let mut command = Command::new("bpftool");
    command.args(["--json", "prog", "show", "id", &program.to_string()]);
    let said: Value = serde_json::from_str(&run(command)?)?;
    Ok(said["tag"].as_str().context("no tag")?.to_owned())
}

/// Detaches a link by force, as another program may.
pub(crate) fn detach(link: u64) -> Result<()> {
    let mut command = Command::new("bpftool");
    command.args(["link", "detach", "id", &link.to_string()]);
    run(command).map(drop)
}

/// Attaches a pinned program to a hook of a cgroup the old way, which keeps everybody below from attaching any there.
pub(crate) fn attach_alone(cgroup: &Path, hook: &str, program: &Path) -> Result<()> {
    let mut command = Command::new("bpftool");
    command.args(["cgroup", "attach"]).arg(cgroup).args([hook, "pinned"]).arg(program);
    run(command).map(drop)
}

/// Makes an array map of so many entries and pins it.
pub(crate) fn pin_map(path: &Path, name: &str, value: u32, entries: u32) -> Result<()> {
    let (value, entries) = (value.to_string(), entries.to_string());
    let mut command = Command::new("bpftool");
    command.args(["map", "create"]).arg(path);
    command.args(["type", "array", "key", "4", "value", &value, "entries", &entries, "name", name]);
    run(command).map(drop)
}

/// How many entries a pinned map has.
pub(crate) fn entries(pin: &Path) -> Result<usize> {
    let mut command = Command::new("bpftool");
    command.args(["--json", "map", "dump", "pinned"]).arg(pin);
    Ok(serde_json::from_str::<Vec<Value>>(&run(command)?)?.len())
}

/// What is attached to the interfaces of a namespace, and to the namespace itself.
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
