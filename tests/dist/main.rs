//! The artifacts of `cargo xtask dist`, used as users do: the package in a small Debian of its own, the unpacked
//! archive, and their program in a lab. All need root.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};
use walkdir::WalkDir;

/// Paths that apt and dpkg themselves write at an installation.
const NOTES: [&str; 5] = ["var/lib/dpkg", "var/log", "var/cache", "tmp", "package.deb"];

/// A copy of the small Debian, which is removed with the test.
struct Debian(tempfile::TempDir);

impl Debian {
    fn start() -> Result<Self> {
        let pristine = env::var_os("PROXYMATIC_DEBIAN").context("run by `cargo xtask test dist`")?;
        // The folder of the original has room for a copy; /tmp may be in memory.
        let beside = Path::new(&pristine).parent().context("no folder")?.to_path_buf();
        let room = tempfile::tempdir_in(beside)?;
        run(Command::new("cp").arg("--archive").arg("--no-target-directory").arg(&pristine).arg(room.path()))?;
        Ok(Self(room))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs a program of the Debian inside it.
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut inside = Command::new("chroot");
        run(inside.arg(self.path()).args(arguments).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C"))
    }

    fn install(&self) -> Result<()> {
        fs::copy(made(".deb")?, self.path().join("package.deb"))?;
        self.run(&["dpkg", "--install", "/package.deb"]).map(drop)
    }

    /// Returns every file and link, except the records of the package manager.
    fn files(&self) -> Result<BTreeSet<String>> {
        let mut files = BTreeSet::new();
        for entry in WalkDir::new(self.path()) {
            let path = entry?.path().strip_prefix(self.path())?.to_path_buf();
            if !NOTES.iter().any(|it| path.starts_with(it)) {
                files.insert(path.display().to_string());
            }
        }
        Ok(files)
    }
}

#[test]
fn package_installs_program_unit_documents_and_settings() -> TestResult {
    let debian = Debian::start()?;
    debian.install()?;
    for file in [
        "/usr/bin/proxymatic",
        "/lib/systemd/system/proxymatic.service",
        "/etc/default/proxymatic",
        "/usr/share/man/man1/proxymatic.1.gz",
        "/usr/share/man/man1/proxymatic-backend-drain.1.gz",
        "/usr/share/bash-completion/completions/proxymatic",
        "/usr/share/zsh/vendor-completions/_proxymatic",
        "/usr/share/fish/vendor_completions.d/proxymatic.fish",
    ] {
        let place = debian.path().join(file.trim_start_matches('/'));
        let merged = debian.path().join("usr").join(file.trim_start_matches('/'));
        assert!(place.is_file() || merged.is_file(), "no {file}");
    }
    assert_eq!(debian.run(&["proxymatic", "--version"])?.trim(), concat!("proxymatic ", env!("CARGO_PKG_VERSION")));
    // Enabled for the next boot: the link that `systemctl enable` makes.
    let wanted = debian.path().join("etc/systemd/system/multi-user.target.wants/proxymatic.service");
    assert!(fs::symlink_metadata(&wanted).is_ok(), "the unit is not enabled");
    // The program needs no libraries: it would run in any root.
    let linked = Command::new("ldd").arg(debian.path().join("usr/bin/proxymatic")).output()?;
    let said = String::from_utf8_lossy(&linked.stdout).into_owned() + &String::from_utf8_lossy(&linked.stderr);
    assert!(said.contains("statically linked") || said.contains("not a dynamic"), "{said}");
    Ok(())
}

#[test]
fn package_removal_keeps_settings_and_purge_removes_them() -> TestResult {
    let debian = Debian::start()?;
    let before = debian.files()?;
    debian.install()?;
    fs::create_dir_all(debian.path().join("var/lib/proxymatic"))?;
    fs::write(debian.path().join("var/lib/proxymatic/state.json"), "what an agent would write")?;
    debian.run(&["dpkg", "--remove", "proxymatic"])?;
    let left: Vec<_> = debian.files()?.difference(&before).cloned().collect();
    // Besides its settings: the files that it has written, and those with which systemd's helper would enable the unit
    // again.
    let kept = |path: &String| ["etc/", "var/lib/proxymatic", "var/lib/systemd/"].iter().any(|it| path.starts_with(it));
    assert!(left.iter().all(kept) && left.contains(&"etc/default/proxymatic".into()), "{left:?}");
    debian.run(&["dpkg", "--purge", "proxymatic"])?;
    assert_eq!(debian.files()?.difference(&before).collect::<Vec<_>>(), Vec::<&String>::new());
    Ok(())
}

#[test]
fn package_reinstall_keeps_changed_settings() -> TestResult {
    let debian = Debian::start()?;
    debian.install()?;
    let settings = debian.path().join("etc/default/proxymatic");
    fs::write(&settings, "MARATHON_URL=http://mine.example:8080\n")?;
    debian.install()?;
    assert_eq!(fs::read_to_string(settings)?, "MARATHON_URL=http://mine.example:8080\n");
    Ok(())
}

#[test]
fn units_pass_systemd_analyze_verify() -> TestResult {
    let debian = Debian::start()?;
    debian.install()?;
    // The other unit runs a program that this Debian does not have, and starts after that program's unit.
    let units = debian.path().join("etc/systemd/system");
    fs::create_dir_all(&units)?;
    fs::copy(deploy().join("proxymatic-container.service"), units.join("proxymatic-container.service"))?;
    fs::write(units.join("docker.service"), "[Service]\nExecStart=/usr/bin/docker\n")?;
    fs::copy(debian.path().join("bin/true"), debian.path().join("usr/bin/docker"))?;
    for unit in ["proxymatic.service", "proxymatic-container.service"] {
        let mut verify = Command::new("systemd-analyze");
        verify.arg("verify").arg(format!("--root={}", debian.path().display())).arg("--man=no").arg(unit);
        let left = verify.output().context("run systemd-analyze")?;
        let said = String::from_utf8_lossy(&left.stderr).into_owned() + &String::from_utf8_lossy(&left.stdout);
        // Messages about other units of this Debian do not matter.
        let ours: Vec<_> = said.lines().filter(|line| line.contains("proxymatic")).collect();
        assert!(left.status.success() && ours.is_empty(), "{unit}: {said}");
    }
    Ok(())
}

#[test]
fn installed_agent_serves_with_only_its_unit_capabilities() -> TestResult {
    let debian = Debian::start()?;
    debian.install()?;
    let lab = Lab::start(2)?;
    let (sim, _replica) = (lab.sim()?, lab.replica(2, 8001, "a")?);
    sim.app("/web", 1234, &[(2, 8001)])?;
    let unit = fs::read_to_string(deploy().join("proxymatic.service"))?;
    let granted = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).context("no set")?;
    // This machine cannot grant capabilities that it lacks; the unit has this one for kernels before 5.11 only.
    let names = granted.split_whitespace().filter(|it| *it != "CAP_SYS_RESOURCE");
    let names: Vec<_> = names.map(|it| it.trim_start_matches("CAP_").to_lowercase()).collect();
    let bounding = format!("--bounding-set=-all,+{}", names.join(",+"));
    let host = lab.host(1);
    let program = debian.path().join("usr/bin/proxymatic").display().to_string();
    let (cgroup, pins, socket) = (host.cgroup().path().display(), host.pins(), host.socket());
    let (cgroup, pins, socket) = (cgroup.to_string(), pins.display().to_string(), socket.display().to_string());
    let marathon = lab.marathon_url();
    let with = [bounding.as_str(), "--inh-caps=-all", "--no-new-privs", "--", &program, "run"];
    let at = ["--cgroup", &cgroup, "--bpffs", &pins, "--socket", &socket, "--marathon", &marathon];
    let agent = host.spawn(Path::new("setpriv"), &[&with[..], &at].concat())?;
    host.agent_ready(PATIENCE).with_context(|| agent.log())?;
    let seen = lab.client(&["http", "--url", "http://localhost:1234/", "--count", "20"])?;
    assert!(seen.ok == 20 && seen.by_replica["a"] == 20, "{seen:?}");
    eventually_ok("all is well", PATIENCE, || host.well())?;
    Ok(())
}

#[test]
fn archive_unpacks_to_a_program_with_its_documents() -> TestResult {
    let room = tempfile::tempdir()?;
    run(Command::new("tar").arg("--directory").arg(room.path()).arg("--extract").arg("--file").arg(made(".tar.gz")?))?;
    let inside = fs::read_dir(room.path())?.next().context("empty")??.path();
    let said = run(Command::new(inside.join("bin/proxymatic")).arg("--version"))?;
    assert_eq!(said.trim(), concat!("proxymatic ", env!("CARGO_PKG_VERSION")));
    for file in
        ["share/man/man1/proxymatic.1", "share/doc/proxymatic/LICENSE-MIT", "share/doc/proxymatic/deploy/env.example"]
    {
        assert!(inside.join(file).is_file(), "no {file}");
    }
    Ok(())
}

/// Returns the only artifact whose name ends in this way.
fn made(end: &str) -> Result<PathBuf> {
    let folder = env::var_os("PROXYMATIC_DIST").context("run by `cargo xtask test dist`")?;
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        found.extend(path.to_string_lossy().ends_with(end).then_some(path));
    }
    match found.as_slice() {
        [one] => Ok(one.clone()),
        other => bail!("not one *{end}, but {other:?}"),
    }
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn run(command: &mut Command) -> Result<String> {
    let left = command.output().with_context(|| format!("run {command:?}"))?;
    let warning = String::from_utf8_lossy(&left.stderr);
    ensure!(left.status.success(), "{command:?}: {}\n{warning}", left.status);
    Ok(String::from_utf8_lossy(&left.stdout).into_owned())
}
