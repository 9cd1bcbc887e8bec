//! `cargo xtask build-ebpf`: compiles every binary of `proxymatic-ebpf` to `target/bpf/NAME.o`.
//!
//! Always below the checkout's own `target`, whatever CARGO_TARGET_DIR is: the agent's build script looks there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    command,
    setup::{self, Toolchain},
    workspace,
};

/// BPF programs run in the byte order of the kernel that loads them.
const TARGET: &str = if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };

/// The folder of the object with logging hooks (`proxymatic run --bpf-log`).
const LOUD: &str = "log";

pub(crate) fn run() -> Result<()> {
    build(LOUD, &["--features", "proxymatic-ebpf/log"])?;
    build("", &[])
}

/// Builds with more arguments for cargo, to `target/bpf/FOLDER/`.
pub(crate) fn build(folder: &str, more: &[&str]) -> Result<()> {
    let target = workspace::root().join("target");
    let toolchain = setup::toolchain()?;
    let messages = command::read(compile(&toolchain, &target).args(more))?;
    for binary in executables(&messages) {
        let object = publish(&binary, &target.join("bpf").join(folder), toolchain.strip().as_deref())
            .with_context(|| format!("cannot publish {}", binary.display()))?;
        println!("{object}");
    }
    Ok(())
}

fn compile(toolchain: &Toolchain, target: &Path) -> Command {
    let mut build = toolchain.cargo_build();
    build
        .args(["--release", "--package", "proxymatic-ebpf", "--bins"])
        .args(["--target", TARGET, "--target-dir"])
        // A directory of its own, so that this build never waits for the lock of a host build.
        .arg(target.join("bpf-build"))
        .arg("--message-format=json-render-diagnostics")
        .current_dir(workspace::root());
    build
}

/// The executables that a build reports in cargo's JSON messages.
fn executables(messages: &str) -> Vec<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .collect()
}

/// Copies a built object, unless the file already has its bytes: a write would rebuild the agent. Of the debug
/// information, three quarters of an object, only BTF is kept, which the kernel reads.
fn publish(binary: &Path, folder: &Path, strip: Option<&Path>) -> Result<String> {
    let name = binary.file_name().context("it has no name")?;
    let object = folder.join(name).with_extension("o");
    let new = object.with_extension("o.new");
    fs::create_dir_all(folder)?;
    fs::copy(binary, &new)?;
    if let Some(strip) = strip {
        command::run(Command::new(strip).arg("--strip-debug").arg(&new))?;
    }
    let bytes = fs::read(&new)?;
    let same = fs::read(&object).is_ok_and(|old| old == bytes);
    if same {
        fs::remove_file(&new)?;
    } else {
        fs::rename(&new, &object)?;
    }
    let news = if same { "unchanged" } else { "new" };
    Ok(format!("{}: {} bytes, {news}", object.display(), bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_messages_yield_only_executables() {
        let messages = r#"{"reason":"compiler-artifact","executable":null,"filenames":["/t/libcommon.rlib"]}
{"reason":"compiler-artifact","executable":"/t/release/proxymatic-hooks"}
{"reason":"build-finished","success":true}
a build script's own line"#;
        assert_eq!(executables(messages), [PathBuf::from("/t/release/proxymatic-hooks")]);
    }

    #[test]
    fn object_is_written_only_if_its_bytes_differ() {
        let folder = std::env::temp_dir().join(format!("xtask-publish-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let binary = folder.join("proxymatic-hooks");
        fs::write(&binary, "one").unwrap();

        assert!(publish(&binary, &folder, None).unwrap().ends_with("3 bytes, new"));
        assert!(publish(&binary, &folder, None).unwrap().ends_with("3 bytes, unchanged"));
        fs::write(&binary, "two").unwrap();
        assert!(publish(&binary, &folder, None).unwrap().ends_with("3 bytes, new"));
        assert_eq!(fs::read(folder.join("proxymatic-hooks.o")).unwrap(), b"two");

        fs::remove_dir_all(&folder).unwrap();
    }
}
