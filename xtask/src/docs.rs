//! `cargo xtask docs`: man pages and shell completions in `docs` of the target folder, made by the program itself from
//! its command line definitions.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    command,
    workspace::{self, cargo},
};

/// The shells, and the names of their files.
const SHELLS: [(&str, &str); 3] = [("bash", "proxymatic.bash"), ("zsh", "_proxymatic"), ("fish", "proxymatic.fish")];

pub(crate) fn run() -> Result<()> {
    command::run(cargo().args(["build", "--quiet", "-p", "proxymatic-user"]))?;
    let docs = make(&workspace::target_dir().join("debug/proxymatic"))?;
    println!("{}", docs.display());
    Ok(())
}

/// Makes them with a build of the program, and returns their folder.
pub(crate) fn make(program: &Path) -> Result<PathBuf> {
    let docs = workspace::target_dir().join("docs");
    let (man, completions) = (docs.join("man"), docs.join("completions"));
    // Otherwise pages of removed commands would stay.
    if docs.exists() {
        fs::remove_dir_all(&docs).with_context(|| format!("cannot empty {}", docs.display()))?;
    }
    fs::create_dir_all(&completions).with_context(|| format!("cannot make {}", completions.display()))?;
    command::run(Command::new(program).arg("manual").arg(&man))?;
    for (shell, file) in SHELLS {
        write(program, shell, &completions.join(file))?;
    }
    Ok(docs)
}

fn write(program: &Path, shell: &str, file: &Path) -> Result<()> {
    let script = command::read(Command::new(program).args(["completions", shell]))?;
    fs::write(file, script).with_context(|| format!("cannot write {}", file.display()))
}
