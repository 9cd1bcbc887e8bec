//! Containers on a real Docker bridge, with the agent on the host that dockerd runs on; needs root and docker.io.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::cgroup;
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Dialer, Lab, PATIENCE, binary};
use proxymatic_tests::process::Process;
use serde_json::json;

const IMAGE: &str = "nothing";
/// What the containers' programs are linked with is the machine's own.
const LIBRARIES: [&str; 3] = ["/lib", "/lib64", "/usr/lib"];
const BRIDGE: &str = "172.17.0.1";
const WAYS: [&str; 3] = ["tcp", "udp", "udp-unconnected"];
/// How long dockerd may take to start, on a machine that has never run it.
const START: Duration = Duration::from_secs(60);

/// dockerd on host 1, with namespaces of its own for mounts and cgroups: its containers' cgroups are below the host's,
/// and nothing of it outlives it.
struct Docker<'lab> {
    lab: &'lab Lab,
    socket: String,
    _daemon: Process,
}

#[test]
fn containers_reach_services_at_the_bridge_at_the_host_and_where_told_so_at_their_own_localhost() -> TestResult {
    let lab = Lab::start(2)?;
    let docker = Docker::start(&lab)?;
    // One replica on another host, one in a container.
    let mut far = lab.host(2).program_in(lab.host(2).cgroup(), &binary("attempts")?, &[])?;
    assert_eq!(far.tell("serve 10.77.0.2:8001 far")?, "ok");
    let mut inside = docker.run("replica", &[])?;
    assert_eq!(inside.tell("serve 0.0.0.0:80 inside")?, "ok");
    let address = docker.command(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "replica"])?;
    docker.is_below_the_hosts_cgroup("replica")?;

    let backends = json!([{ "address": "10.77.0.2", "port": 8001 }, { "address": address.trim(), "port": 80 }]);
    let service = |protocol| json!({ "name": protocol, "port": 1234, "protocol": protocol, "policy": "roundrobin", "backends": backends });
    let file = lab.run_dir().join("services.json");
    fs::write(&file, json!({ "services": [service("tcp"), service("udp")] }).to_string())?;
    let file = file.to_str().context("a strange path")?;

    let mut client = docker.run("client", &[])?;
    let mut on_host = docker.run("on-host", &["--network", "host"])?;
    for (loopback, own) in [("host", false), ("all", true)] {
        let _agent = lab.host(1).agent_of(lab.host(1).cgroup(), &["--file", file, "--loopback", loopback])?;
        lab.host(1).agent_ready(PATIENCE)?;
        for to in [BRIDGE, "10.77.0.1"] {
            is_served(&mut client, to)?;
            is_served(&mut on_host, to)?;
        }
        is_served(&mut on_host, "127.0.0.1")?;
        if own {
            is_served(&mut client, "127.0.0.1")?;
        } else {
            assert_eq!(client.tell("try tcp 127.0.0.1:1234")?, "connect ECONNREFUSED");
        }
        // A listener of its own in the container is not asked about for the host's addresses.
        assert_eq!(lab.host(1).verdict("local_listener")?, 0);
    }
    Ok(())
}

#[test]
fn clients_on_another_host_reach_a_container_by_its_published_port_and_by_its_address() -> TestResult {
    let lab = Lab::start(2)?;
    let docker = Docker::start(&lab)?;
    let published = ["--publish", "8001:80/tcp", "--publish", "8001:80/udp"];
    let mut inside = docker.run("replica", &published)?;
    assert_eq!(inside.tell("serve 0.0.0.0:80 inside")?, "ok");
    let address = docker.command(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "replica"])?;
    let service = |port: u16, protocol, address: &str, at: u16| {
        let backends = json!([{ "address": address, "port": at }]);
        let name = format!("{protocol}{port}");
        json!({ "name": name, "port": port, "protocol": protocol, "expose": true, "backends": backends })
    };
    let both = |port, address: &str, at| ["tcp", "udp"].map(|protocol| service(port, protocol, address, at));
    let services = [both(1234, "10.77.0.1", 8001), both(1235, address.trim(), 80)].concat();
    let file = lab.run_dir().join("services.json");
    fs::write(&file, json!({ "services": services }).to_string())?;
    let arguments = ["--file", file.to_str().context("a strange path")?, "--interface", "lab0"];
    let _agent = lab.host(1).agent_of(lab.host(1).cgroup(), &arguments)?;
    lab.host(1).agent_ready(PATIENCE)?;
    let mut client = lab.host(2).program_in(lab.host(2).cgroup(), &binary("attempts")?, &[])?;
    for port in [1234, 1235] {
        eventually_ok("a container answers", PATIENCE, || {
            let said = client.tell(&format!("try tcp 10.77.0.1:{port}"))?;
            ensure!(said.starts_with("inside "), "{said}");
            Ok(())
        })?;
        for way in WAYS {
            let said = client.tell(&format!("try {way} 10.77.0.1:{port}"))?;
            let seen = said.split(' ').skip(1).all(|seen| seen == "-" || seen == format!("10.77.0.1:{port}"));
            assert!(said.starts_with("inside ") && seen, "{way} {port}: {said}");
        }
    }
    assert!(lab.host(1).verdict("delivered")? >= 6);
    Ok(())
}

/// Both replicas answer in each way, and are taken for what was dialled.
fn is_served(client: &mut Dialer, to: &str) -> Result<()> {
    for way in WAYS {
        let order = format!("try {way} {to}:1234");
        let said = (0..4).map(|_| client.tell(&order)).collect::<Result<Vec<_>>>()?;
        for word in ["far", "inside"] {
            ensure!(said.iter().any(|it| it.starts_with(&format!("{word} "))), "{order}: {said:?}");
        }
        let seen = |said: &String| said.split(' ').skip(1).all(|seen| seen == "-" || seen == format!("{to}:1234"));
        ensure!(said.iter().all(seen), "{order}: {said:?}");
    }
    Ok(())
}

impl<'lab> Docker<'lab> {
    fn start(lab: &'lab Lab) -> Result<Self> {
        let host = lab.host(1);
        let room = |name: &str| lab.run_dir().join(name).display().to_string();
        let socket = format!("unix://{}", room("docker.sock"));
        // The cgroup2 tree alone, from the host's cgroup down, as a host without the old one has it.
        let begin = "mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"";
        let arguments = [
            ["--mount", "--cgroup", "sh", "-c", begin, "sh", "dockerd"].map(str::to_owned).to_vec(),
            vec!["--host".to_owned(), socket.clone(), "--bip".to_owned(), format!("{BRIDGE}/16")],
            vec!["--data-root".to_owned(), room("docker"), "--exec-root".to_owned(), room("docker-exec")],
            vec!["--pidfile".to_owned(), room("docker.pid"), "--config-file".to_owned(), room("no-config")],
            ["--storage-driver", "vfs", "--exec-opt", "native.cgroupdriver=cgroupfs"].map(str::to_owned).to_vec(),
        ]
        .concat();
        fs::write(room("no-config"), "{}")?;
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let mut daemon = host.spawn(Path::new("unshare"), &arguments)?;
        eventually_ok("dockerd answers", START, || {
            ensure!(daemon.try_wait()?.is_none(), "it has ended\n{}", daemon.log());
            docker(&socket, &["version"]).map(drop)
        })
        .with_context(|| daemon.log())?;
        let docker = Self { lab, socket, _daemon: daemon };
        // An image without anything: what runs is mounted into it.
        let empty = lab.run_dir().join("empty.tar");
        fs::write(&empty, [0; 1024])?;
        docker.command(&["import", empty.to_str().context("a strange path")?, IMAGE])?;
        Ok(docker)
    }

    /// A container that runs `attempts`, which does what it is told.
    fn run(&self, name: &str, more: &[&str]) -> Result<Dialer> {
        let program = format!("{}:/attempts:ro", binary("attempts")?.display());
        let mounts: Vec<_> = LIBRARIES.map(|it| format!("{it}:{it}:ro")).into_iter().chain([program]).collect();
        let mounts = mounts.iter().flat_map(|it| ["--volume", it.as_str()]);
        let begin = ["--host", &self.socket, "run", "--rm", "--interactive", "--name", name];
        let arguments: Vec<_> = begin.into_iter().chain(mounts).chain(more.iter().copied()).collect();
        self.lab.host(1).program_in(
            self.lab.host(1).cgroup(),
            &client()?,
            &[&arguments, &[IMAGE, "/attempts"][..]].concat(),
        )
    }

    fn command(&self, arguments: &[&str]) -> Result<String> {
        docker(&self.socket, arguments)
    }

    fn is_below_the_hosts_cgroup(&self, name: &str) -> Result<()> {
        let pid = self.command(&["inspect", "-f", "{{.State.Pid}}", name])?;
        let of = fs::read_to_string(format!("/proc/{}/cgroup", pid.trim()))?;
        let host = self.lab.host(1).cgroup().path().strip_prefix(cgroup::root()?)?.display().to_string();
        ensure!(of.lines().any(|line| line.starts_with(&format!("0::/{host}/"))), "{name} is in {of}");
        Ok(())
    }
}

fn docker(socket: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(client()?).args(["--host", socket]).args(arguments).output().context("run docker")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "docker {}: {complaint}", arguments.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The client that came with dockerd: another in PATH may be for another version.
fn client() -> Result<PathBuf> {
    let beside = Path::new("/usr/bin/docker");
    ensure!(beside.is_file(), "no {}; `cargo xtask test docker` installs docker.io", beside.display());
    Ok(beside.to_path_buf())
}
