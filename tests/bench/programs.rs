//! Programs of the distribution: where they are, and their versions.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

/// Returns the first line of a program's version output.
pub(crate) fn version(name: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program(name).ok()?).args(arguments).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let line = String::from_utf8_lossy(&text).lines().find(|line| !line.trim().is_empty())?.trim().to_owned();
    Some(line)
}

/// Finds a program of the distribution.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut rooms: Vec<_> = env::split_paths(&path).collect();
    rooms.push("/usr/sbin".into());
    let found = rooms.into_iter().map(|room| room.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("no program {name}; --install brings it"))
}
