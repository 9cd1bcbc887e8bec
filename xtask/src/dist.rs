//! `cargo xtask dist`: the artifacts for distribution, in `target/dist`: an archive with a static binary, and a Debian
//! package.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    build_ebpf, command, docs, setup,
    workspace::{self, cargo},
};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The Debian release in which the package is tested: the oldest supported one.
const SUITE: &str = "bookworm";
/// Scripts that shellcheck checks, relative to the root.
const SCRIPTS: [&str; 7] = [
    ".ci/run",
    "deploy/debian/postrm",
    "deploy/debian/prerm",
    "vagrant/provision.sh",
    "vagrant/smoke.sh",
    "xtask/src/vm/guest.sh",
    "xtask/src/vm/init.sh",
];

pub(crate) fn run() -> Result<()> {
    let made = make()?;
    for entry in fs::read_dir(&made)? {
        let entry = entry?;
        println!("{}: {} bytes", entry.path().display(), entry.metadata()?.len());
    }
    Ok(())
}

/// Makes both, in an otherwise empty folder, and prints their names.
pub(crate) fn make() -> Result<PathBuf> {
    build_ebpf::run()?;
    let program = workspace::build_static(&[("proxymatic-user", "proxymatic")])?.join("proxymatic");
    let documents = docs::make(&program)?;
    let dist = workspace::target_dir().join("dist");
    if dist.exists() {
        fs::remove_dir_all(&dist).with_context(|| format!("cannot empty {}", dist.display()))?;
    }
    fs::create_dir_all(&dist).with_context(|| format!("cannot make {}", dist.display()))?;
    archive(&program, &documents, &dist)?;
    package(&dist)?;
    Ok(dist)
}

/// Makes `proxymatic-VERSION-linux-ARCH.tar.gz`, to be unpacked below /usr/local or another folder.
fn archive(program: &Path, documents: &Path, dist: &Path) -> Result<()> {
    let name = format!("proxymatic-{VERSION}-linux-{}", env::consts::ARCH);
    let staged = dist.join(&name);
    let root = workspace::root();
    let deploy = root.join("deploy");
    let completions = documents.join("completions");
    let mut files = vec![
        (program.to_path_buf(), "bin/proxymatic"),
        (completions.join("proxymatic.bash"), "share/bash-completion/completions/proxymatic"),
        (completions.join("_proxymatic"), "share/zsh/site-functions/_proxymatic"),
        (completions.join("proxymatic.fish"), "share/fish/vendor_completions.d/proxymatic.fish"),
    ];
    for example in ["proxymatic.service", "proxymatic-container.service", "marathon.json", "env.example"] {
        files.push((deploy.join(example), "share/doc/proxymatic/deploy/"));
    }
    for text in ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        files.push((root.join(text), "share/doc/proxymatic/"));
    }
    for page in fs::read_dir(documents.join("man"))? {
        files.push((page?.path(), "share/man/man1/"));
    }
    for (from, to) in files {
        copy(&from, &staged.join(to), to.ends_with('/'))?;
    }
    let mut tar = Command::new("tar");
    tar.arg("--directory").arg(dist).args(["--create", "--gzip", "--file"]);
    tar.arg(dist.join(format!("{name}.tar.gz")));
    // The owner is root, whichever user has built it.
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"]).arg(&name);
    command::run(&mut tar)?;
    fs::remove_dir_all(&staged).with_context(|| format!("cannot remove {}", staged.display()))
}

fn copy(from: &Path, to: &Path, into: bool) -> Result<()> {
    let to = if into { to.join(from.file_name().context("a file without a name")?) } else { to.to_path_buf() };
    let folder = to.parent().context("a file without a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::copy(from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Makes `proxymatic_VERSION_ARCH.deb`, from `[package.metadata.deb]` of proxymatic-user.
fn package(dist: &Path) -> Result<()> {
    let mut deb = Command::new(setup::cargo_deb()?);
    deb.current_dir(workspace::root()).env("CARGO", cargo().get_program());
    let target = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    // The binary is already stripped of debug information.
    deb.args(["--quiet", "--package", "proxymatic-user", "--no-build", "--no-strip", "--target", &target]);
    deb.arg("--output").arg(dist).arg("--deb-revision").arg("1");
    command::run(&mut deb)
}

/// Checks all scripts with shellcheck.
pub(crate) fn check_scripts() -> Result<()> {
    command::run(Command::new("shellcheck").current_dir(workspace::root()).args(SCRIPTS))
}

/// Returns a small Debian made by debootstrap, in the cache: a folder to be copied, not to be changed.
pub(crate) fn debian_root() -> Result<PathBuf> {
    let root = workspace::cache()?.join(format!("debian-{SUITE}"));
    if !root.exists() {
        println!("making a small Debian, once, half a minute");
        let scratch = root.with_extension("making");
        let _ = fs::remove_dir_all(&scratch);
        let mut make = Command::new("/usr/sbin/debootstrap");
        make.args(["--variant=minbase", "--include=systemd", SUITE]).arg(&scratch).args(mirror());
        command::run(&mut make)?;
        fs::rename(&scratch, &root)?;
    }
    Ok(root)
}

/// Returns the mirror of this machine, which may be the only one that it can reach.
fn mirror() -> Option<String> {
    let sources = ["/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources"];
    let text: String = sources.iter().filter_map(|it| fs::read_to_string(it).ok()).collect();
    find_mirror(&text).map(str::to_owned)
}

/// The first mirror of Debian itself among apt's sources, in either of their forms.
fn find_mirror(sources: &str) -> Option<&str> {
    let lines = sources.lines().filter(|line| line.starts_with("deb ") || line.starts_with("URIs:"));
    let mut words = lines.flat_map(str::split_whitespace);
    words.find(|word| word.contains("://") && !word.contains("security"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirror_is_read_from_either_form_of_apt_sources() {
        let old = "# a comment\ndeb [arch=amd64] http://security.example/ x main\ndeb http://deb.example/debian bookworm main\n";
        assert_eq!(find_mirror(old), Some("http://deb.example/debian"));
        let new = "Types: deb\nURIs: https://deb.example/debian\nSuites: trixie\n";
        assert_eq!(find_mirror(new), Some("https://deb.example/debian"));
        assert_eq!(find_mirror(""), None);
    }

    #[test]
    fn every_script_of_the_checkout_is_checked() {
        let known = |path: &Path| SCRIPTS.iter().any(|it| workspace::root().join(it) == path);
        for script in SCRIPTS {
            assert!(workspace::root().join(script).is_file(), "no {script}");
        }
        for entry in ignore::WalkBuilder::new(workspace::root()).hidden(false).require_git(false).build() {
            let path = entry.unwrap().into_path();
            if path.extension().is_some_and(|it| it == "sh") {
                assert!(known(&path), "{} is not in SCRIPTS", path.display());
            }
        }
    }
}
