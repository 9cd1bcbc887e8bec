//! Debian's packages, found and unpacked without an installation: the machine's own apt sources stay unchanged.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use crate::command;

/// Sources of kernels: the archive below [`MIRROR`], and the suite. Kernels of supported releases come with the
/// security suite, newer ones with backports.
const SUITES: [(&str, &str); 4] = [
    ("debian-security", "bullseye-security"),
    ("debian", "bookworm"),
    ("debian-security", "bookworm-security"),
    ("debian", "trixie-backports"),
];
/// A proxy is configured in apt, as for all other packages.
const MIRROR: &str = "http://deb.debian.org";
/// From the package debian-archive-keyring.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Maximum age of the package lists.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// A state of apt beside the machine's own, with [`SUITES`] as its sources.
pub(super) struct Apt {
    home: PathBuf,
}

impl Apt {
    /// Opens it in a folder; fetches lists that are missing or a day old. Old lists are used if that fails.
    ///
    /// # Errors
    /// The machine has no apt, or there are no lists and none can be fetched.
    pub(super) fn open(home: &Path) -> Result<Self> {
        ensure!(
            command::ask(Command::new("apt-get").arg("--version")).is_some() && Path::new(KEYS).exists(),
            "kernels come from Debian's packages, which takes apt-get and {KEYS}: run this on Debian"
        );
        let apt = Self { home: home.to_owned() };
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(home.join(folder)).with_context(|| format!("cannot make {}", home.display()))?;
        }
        apt.update()?;
        Ok(apt)
    }

    /// Returns the names of all packages with this prefix.
    pub(super) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = command::read(self.command("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Returns the version of a package, and its dependencies without alternatives.
    pub(super) fn show(&self, package: &str) -> Result<(String, Vec<String>)> {
        let text = command::read(self.command("apt-cache").args(["show", "--no-all-versions", package]))?;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let version = field("Version:").with_context(|| format!("apt has no version of {package}"))?;
        Ok((version.to_owned(), depends(field("Depends:").unwrap_or_default())))
    }

    /// Downloads packages and unpacks them into a new folder.
    pub(super) fn unpack(&self, packages: &[String], folder: &Path) -> Result<()> {
        unpack(self.command("apt-get"), packages, folder)
    }

    fn update(&self) -> Result<()> {
        let sources = self.home.join("sources.list");
        let wanted = sources_list();
        let fresh = fs::metadata(&sources)
            .and_then(|it| it.modified())
            .is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age < FRESH));
        let same = fs::read_to_string(&sources).is_ok_and(|it| it == wanted);
        if fresh && same {
            return Ok(());
        }
        // Written for apt to read, and written again on success: its time is that of the lists.
        fs::write(&sources, &wanted)?;
        if !same {
            fs::remove_file(self.home.join("updated")).ok();
        }
        println!("fetching lists of Debian's kernels");
        let mut update = self.command("apt-get");
        update.args(["update", "--quiet", "--error-on=any"]);
        match command::run(&mut update) {
            Ok(()) => fs::write(self.home.join("updated"), "")?,
            Err(error) if self.home.join("updated").exists() => {
                eprintln!("going on with older lists: {error}");
            }
            Err(error) => {
                fs::remove_file(&sources)?;
                bail!("cannot fetch the lists of Debian's kernels from {MIRROR}: {error}; is there a way to it?");
            }
        }
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (option, value) in [
            ("Dir::Etc::sourcelist", self.home.join("sources.list").display().to_string()),
            ("Dir::Etc::sourceparts", "/dev/null".into()),
            ("Dir::State::lists", self.home.join("lists").display().to_string()),
            ("Dir::Cache", self.home.join("cache").display().to_string()),
            ("Acquire::Languages", "none".into()),
        ] {
            command.arg("-o").arg(format!("{option}={value}"));
        }
        command
    }
}

/// Downloads packages of the machine's own release and unpacks them, with all dependencies that are not installed.
pub(super) fn unpack_with_needs(packages: &[&str], folder: &Path) -> Result<()> {
    // A simulation, which fails if an installation would remove packages, but lists the packages even then.
    let simulate = || {
        let mut simulate = Command::new("apt-get");
        simulate.args(["install", "--simulate", "--no-install-recommends"]).args(packages);
        command::ask(&mut simulate).map(|said| to_be_installed(&said)).filter(|it| !it.is_empty())
    };
    let mut found = match simulate() {
        Some(found) => found,
        None => {
            command::run(Command::new("apt-get").args(["update", "--quiet"]))?;
            simulate().ok_or_else(|| anyhow!("apt-get cannot install {}", packages.join(" ")))?
        }
    };
    // An installed package cannot be installed. Its dependencies are installed too, but the package itself must be in
    // the same folder as the others.
    let missing = |name: &&str| !found.iter().any(|it| it.split('=').next() == Some(*name));
    let installed: Vec<_> = packages.iter().copied().filter(missing).map(str::to_owned).collect();
    found.extend(installed);
    unpack(Command::new("apt-get"), &found, folder)
}

/// Whether a package is installed on this machine.
pub(super) fn is_installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]);
    command::ask(&mut query).is_some_and(|said| said.trim() == "installed")
}

/// In a folder beside the final place, which is renamed when complete: an interrupted download leaves no partial
/// folder.
fn unpack(mut apt: Command, packages: &[String], folder: &Path) -> Result<()> {
    println!("fetching {}", packages.join(" "));
    let scratch = folder.with_extension("unpacking");
    if scratch.exists() {
        fs::remove_dir_all(&scratch)?;
    }
    let (archives, files) = (scratch.join("archives"), scratch.join("files"));
    for folder in [&archives, &files] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    // apt's sandbox user could not write here; signatures are checked anyway.
    apt.args(["-o", "APT::Sandbox::User=root", "download", "--quiet"]).args(packages).current_dir(&archives);
    command::run(&mut apt)?;
    for archive in fs::read_dir(&archives)? {
        command::run(Command::new("dpkg-deb").arg("--extract").arg(archive?.path()).arg(&files))?;
    }
    fs::rename(files, folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::remove_dir_all(scratch)?;
    Ok(())
}

fn sources_list() -> String {
    let line = |(archive, suite): &(&str, &str)| format!("deb [signed-by={KEYS}] {MIRROR}/{archive} {suite} main\n");
    SUITES.iter().map(line).collect()
}

/// `a (= 1), b | c, d` is a and d.
fn depends(field: &str) -> Vec<String> {
    let one = |it: &str| (!it.contains('|')).then(|| it.split_whitespace().next().map(str::to_owned))?;
    field.split(',').filter_map(one).collect()
}

/// `Inst NAME (VERSION ...` of a simulation, as `NAME=VERSION`; `Inst NAME [OLD] (...` would be an upgrade.
fn to_be_installed(simulation: &str) -> Vec<String> {
    let lines = simulation.lines().filter_map(|line| line.strip_prefix("Inst "));
    let pinned = |line: &str| {
        let (name, rest) = line.split_once(" (")?;
        let (name, version) = (name.split(' ').next()?, rest.split(' ').next()?);
        Some(format!("{name}={version}"))
    };
    lines.filter_map(pinned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_apt_suite_is_a_line_with_its_key() {
        let list = sources_list();
        assert_eq!(list.lines().count(), SUITES.len());
        assert!(list.contains("gpg] http://deb.debian.org/debian trixie-backports main\n"), "{list}");
    }

    #[test]
    fn alternative_packages_are_no_dependency() {
        let field = " dracut | initramfs-tools (>= 0.120), linux-base-7.3 (= 7.3.4-1), linux-binary-7.3 (= 7.3.4-1)";
        assert_eq!(depends(field), ["linux-base-7.3", "linux-binary-7.3"]);
        assert_eq!(depends(""), Vec::<String>::new());
    }

    #[test]
    fn apt_simulation_yields_packages_with_versions() {
        let said = "Reading package lists...\nRemv qemu-utils [1:10]\nInst seabios (1.16.2-1 Debian:12.15/x [all])\n\
                    Inst kmod [29] (30+2 Debian:12 [amd64])\nConf seabios (1.16.2-1 Debian:12.15/x [all])\n";
        assert_eq!(to_be_installed(said), ["seabios=1.16.2-1", "kmod=30+2"]);
    }
}
