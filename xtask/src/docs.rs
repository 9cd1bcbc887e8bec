//! `cargo xtask docs`: man pages and completions of shells, made by the program itself from the definitions of its command
//! line, into `docs` of the target folder.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    command,
    workspace::{self, cargo},
};

/// The shells, and what their files are called.
const SHELLS: [(&str, &str); 3] = [("bash", "proxymatic.bash"), ("zsh", "_proxymatic"), ("fish", "proxymatic.fish")];

pub(crate) fn run() -> Result<()> {
    command::run(cargo().args(["build", "--quiet", "-p", "proxymatic-user"]))?;
    let target = workspace::target_dir();
    let (program, docs) = (target.join("debug/proxymatic"), target.join("docs"));
    let (man, completions) = (docs.join("man"), docs.join("completions"));
    // Pages of verbs that are no more would stay.
    if docs.exists() {
        fs::remove_dir_all(&docs).with_context(|| format!("cannot empty {}", docs.display()))?;
    }
    fs::create_dir_all(&completions).with_context(|| format!("cannot make {}", completions.display()))?;
    command::run(Command::new(&program).arg("manual").arg(&man))?;
    for (shell, file) in SHELLS {
        write(&program, shell, &completions.join(file))?;
    }
    println!("{}", docs.display());
    Ok(())
}

fn write(program: &Path, shell: &str, file: &Path) -> Result<()> {
    let script = command::read(Command::new(program).args(["completions", shell]))?;
    fs::write(file, script).with_context(|| format!("cannot write {}", file.display()))
}
