//! dockerd on host 1, and commands for it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::cgroup;
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::lab::{Lab, SocketProgram, binary};
use proxymatic_tests::process::Process;

/// An empty image.
const NOTHING: &str = "nothing";
/// The containers' programs use the machine's shared libraries.
const LIBRARIES: [&str; 3] = ["/lib", "/lib64", "/usr/lib"];
/// The bridge's address on the host.
pub(crate) const BRIDGE: &str = "172.17.0.1";
/// Timeout for the start of dockerd, on a machine that has never run it.
const START: Duration = Duration::from_secs(180);

/// dockerd on host 1, with mount and cgroup namespaces of its own: its containers' cgroups are below the host's, and
/// nothing of it stays behind.
pub(crate) struct Docker<'lab> {
    pub(crate) lab: &'lab Lab,
    socket: PathBuf,
    daemon: Process,
}

impl<'lab> Docker<'lab> {
    pub(crate) fn start(lab: &'lab Lab) -> Result<Self> {
        Self::start_with(lab, &[])
    }

    /// Like [`Self::start`], with `more` arguments of dockerd.
    pub(crate) fn start_with(lab: &'lab Lab, more: &[&str]) -> Result<Self> {
        let host = lab.host(1);
        let room = |name: &str| lab.run_dir().join(name).display().to_string();
        let socket = lab.run_dir().join("docker.sock");
        // The cgroup2 tree alone, from the host's cgroup down, as on a host without cgroup v1.
        let begin = "mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"";
        let arguments = [
            ["--mount", "--cgroup", "sh", "-c", begin, "sh", "dockerd"].map(str::to_owned).to_vec(),
            vec!["--host".to_owned(), at(&socket), "--bip".to_owned(), format!("{BRIDGE}/16")],
            vec!["--data-root".to_owned(), room("docker"), "--exec-root".to_owned(), room("docker-exec")],
            vec!["--pidfile".to_owned(), room("docker.pid"), "--config-file".to_owned(), room("no-config")],
            ["--storage-driver", "vfs", "--exec-opt", "native.cgroupdriver=cgroupfs"].map(str::to_owned).to_vec(),
        ]
        .concat();
        fs::write(room("no-config"), "{}")?;
        let arguments: Vec<_> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let mut daemon = host.spawn(Path::new("unshare"), &arguments)?;
        eventually_ok("dockerd answers", START, || {
            ensure!(daemon.try_wait()?.is_none(), "it has ended\n{}", daemon.log());
            docker(&socket, &["version"]).map(drop)
        })
        .with_context(|| daemon.log())?;
        let docker = Self { lab, socket, daemon };
        // The programs are mounted into it.
        let empty = lab.run_dir().join("empty.tar");
        fs::write(&empty, [0; 1024])?;
        docker.command(&["import", empty.to_str().context("a path that is not UTF-8")?, NOTHING])?;
        Ok(docker)
    }

    /// Starts a container with `connect-variants`, which performs commands.
    pub(crate) fn run(&self, name: &str, more: &[&str]) -> Result<SocketProgram> {
        self.run_program("connect-variants", name, more)
    }

    /// Starts a container with another program of the tests that answers each command line with one line.
    pub(crate) fn run_program(&self, program: &str, name: &str, more: &[&str]) -> Result<SocketProgram> {
        let socket = at(&self.socket);
        let inside = format!("/{program}");
        let mounted = format!("{}:{inside}:ro", binary(program)?.display());
        let mounts: Vec<_> = LIBRARIES.map(|it| format!("{it}:{it}:ro")).into_iter().chain([mounted]).collect();
        let mounts = mounts.iter().flat_map(|it| ["--volume", it.as_str()]);
        let begin = ["--host", &socket, "run", "--rm", "--interactive", "--name", name];
        let arguments: Vec<_> = begin.into_iter().chain(mounts).chain(more.iter().copied()).collect();
        let host = self.lab.host(1);
        host.program_in(host.cgroup(), &client()?, &[&arguments, &[NOTHING, inside.as_str()][..]].concat())
    }

    /// Runs a command of the client, and returns its output.
    pub(crate) fn command(&self, arguments: &[&str]) -> Result<String> {
        docker(&self.socket, arguments)
    }

    /// Returns the output of a container.
    pub(crate) fn log(&self, name: &str) -> Result<String> {
        let output = Command::new(client()?).args(["--host", &at(&self.socket), "logs", name]).output()?;
        Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }

    /// Builds one of the prepared images; `None` is the last stage.
    pub(crate) fn build(&self, name: &str, stage: Option<&str>) -> Result<()> {
        let (target, room) = (stage.map(|it| ["--target", it]), images()?);
        let arguments = ["build", "--quiet", "--tag", name].into_iter().chain(target.into_iter().flatten());
        let room = room.to_str().context("a path that is not UTF-8")?;
        self.command(&arguments.chain([room]).collect::<Vec<_>>()).map(drop)
    }

    /// docker-compose for this Docker, in the checkout.
    pub(crate) fn compose(&self) -> Command {
        let mut compose = compose();
        compose.env("DOCKER_HOST", at(&self.socket));
        compose
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Returns its mounted file systems of a type.
    pub(crate) fn mounted(&self, kind: &str) -> Result<Vec<String>> {
        let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", self.daemon.pid()?))?;
        // Other labs are made and removed meanwhile.
        let of_others =
            |line: &str| line.contains("/proxymatic-lab-") && !line.contains(&self.lab.run_dir().display().to_string());
        let of_kind = |line: &&str| {
            !of_others(line) && line.split_once(" - ").is_some_and(|(_, it)| it.starts_with(&format!("{kind} ")))
        };
        Ok(mounts.lines().filter(of_kind).map(str::to_owned).collect())
    }

    pub(crate) fn is_below_the_hosts_cgroup(&self, name: &str) -> Result<()> {
        let pid = self.command(&["inspect", "-f", "{{.State.Pid}}", name])?;
        let of = fs::read_to_string(format!("/proc/{}/cgroup", pid.trim()))?;
        let host = self.lab.host(1).cgroup().path().strip_prefix(cgroup::root()?)?.display().to_string();
        ensure!(of.lines().any(|line| line.starts_with(&format!("0::/{host}/"))), "{name} is in {of}");
        Ok(())
    }
}

/// docker-compose in the checkout, without a Docker.
pub(crate) fn compose() -> Command {
    let mut compose = Command::new("/usr/bin/docker-compose");
    compose.current_dir(checkout()).args(["--file", "docker-compose.yml"]).env_remove("HOST_ADDRESS");
    compose
}

/// Runs a command and returns its standard output.
pub(crate) fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let (out, warning) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?}: {}\n{out}{warning}", output.status);
    Ok(out.into_owned())
}

/// The root of the checkout.
pub(crate) fn checkout() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

fn images() -> Result<PathBuf> {
    let room = env::var_os("PROXYMATIC_IMAGE_DIR").map_or_else(|| checkout().join("target/image"), PathBuf::from);
    ensure!(room.join("Dockerfile").is_file(), "nothing in {}: cargo xtask image --prepare", room.display());
    Ok(room)
}

fn docker(socket: &Path, arguments: &[&str]) -> Result<String> {
    said(Command::new(client()?).args(["--host", &at(socket)]).args(arguments))
}

fn at(socket: &Path) -> String {
    format!("unix://{}", socket.display())
}

/// The client that came with this dockerd; another one in PATH may be for another version.
fn client() -> Result<PathBuf> {
    let beside = Path::new("/usr/bin/docker");
    ensure!(beside.is_file(), "no {}; `cargo xtask test docker` installs docker.io", beside.display());
    Ok(beside.to_path_buf())
}
