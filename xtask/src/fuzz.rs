//! `cargo xtask fuzz TARGET`: coverage-guided fuzzing of input parsers and of plans. Needs a nightly compiler.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{command, workspace};

/// Arguments of the task.
#[derive(clap::Args)]
pub(crate) struct Fuzz {
    /// The target: a file of fuzz/fuzz_targets without its ending.
    target: String,
    /// Duration in seconds.
    #[arg(long, default_value_t = 300)]
    seconds: u32,
    /// Do not fuzz, but reduce the corpus to the smallest set with the same coverage, and pack it.
    #[arg(long)]
    minimise: bool,
}

/// The version of cargo-fuzz that works here.
const CARGO_FUZZ: &str = "0.13.2";
/// The folder with one packed corpus per target, into which corpora are unpacked.
const CORPORA: &str = "fuzz/corpus";

impl Fuzz {
    pub(crate) fn run(&self) -> Result<()> {
        if command::ask(Command::new("rustup").args(["run", "nightly", "rustc", "--version"])).is_none() {
            bail!("fuzzing needs a nightly compiler and there is none; run: rustup toolchain install nightly");
        }
        if command::ask(Command::new("cargo-fuzz").arg("--version")).is_none() {
            eprintln!("installing cargo-fuzz {CARGO_FUZZ}");
            command::run(Command::new("cargo").args(["install", "--locked", "cargo-fuzz", "--version", CARGO_FUZZ]))?;
        }
        let corpora = workspace::root().join(CORPORA);
        unpack(&corpora, &self.target)?;
        let verb = if self.minimise { "cmin" } else { "run" };
        // Without sanitizer: the fuzzed code has no unsafe parts, and runs several times as fast.
        let mut fuzz = Command::new("rustup");
        fuzz.args(["run", "nightly", "cargo", "fuzz", verb, "--sanitizer", "none", &self.target]);
        if self.minimise {
            // Coverage is counted once per edge: the corpus has some hundred small files, not thousands.
            fuzz.args(["--", "-use_counters=0"]);
        } else {
            let dictionary = format!("-dict=fuzz/dictionaries/{}.dict", self.target);
            fuzz.args(["--", &format!("-max_total_time={}", self.seconds), &dictionary]);
        }
        command::run(fuzz.current_dir(workspace::root()))?;
        if self.minimise {
            pack(&corpora, &self.target)?;
        }
        Ok(())
    }
}

/// Unpacks the corpus of a target beside what earlier runs found. Not every target has one.
fn unpack(corpora: &Path, target: &str) -> Result<()> {
    let archive = corpora.join(format!("{target}.tar.gz"));
    if archive.try_exists().with_context(|| format!("look for {}", archive.display()))? {
        command::run(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(corpora))?;
    }
    Ok(())
}

/// Packs the corpus of a target. The same entries make the same archive, so that it changes only if they do.
fn pack(corpora: &Path, target: &str) -> Result<()> {
    let archive = corpora.join(format!("{target}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--format=ustar", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"]);
    tar.args(["--mode=go=u-w", "--use-compress-program=gzip -9n", "-cf"]).arg(archive);
    command::run(tar.arg("-C").arg(corpora).arg(target))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn entries(folder: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
        let entry = |it: fs::DirEntry| (it.file_name(), fs::read(it.path()).unwrap());
        let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|it| entry(it.unwrap())).collect();
        entries.sort();
        entries
    }

    #[test]
    fn packed_corpora_unpack_to_the_same_entries() {
        let committed = workspace::root().join(CORPORA);
        let scratch = std::env::temp_dir().join(format!("proxymatic-corpora-{}", std::process::id()));
        for target in ["file", "labels", "reading", "registrator", "sse"] {
            let archive = format!("{target}.tar.gz");
            fs::create_dir_all(&scratch).unwrap();
            let packed = fs::read(committed.join(&archive)).unwrap();
            fs::write(scratch.join(&archive), &packed).unwrap();
            unpack(&scratch, target).unwrap();
            let unpacked = entries(&scratch.join(target));
            assert!(!unpacked.is_empty(), "{target}");
            pack(&scratch, target).unwrap();
            fs::remove_dir_all(scratch.join(target)).unwrap();
            unpack(&scratch, target).unwrap();
            assert_eq!(entries(&scratch.join(target)), unpacked, "{target}");
            fs::remove_dir_all(&scratch).unwrap();
        }
    }

    #[test]
    fn target_without_a_corpus_unpacks_nothing() {
        unpack(&workspace::root().join(CORPORA), "no-such-target").unwrap();
    }
}
