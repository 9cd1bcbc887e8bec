//! The harness itself: hosts reach each other, and nothing stays behind, however a test ends.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, thread};

use anyhow::{Context as _, Result, ensure};
use nix::libc;
use nix::sys::signal::Signal;
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};
use proxymatic_tests::net::{NetNs, host_address, host_address6};
use proxymatic_tests::process::Process;
use proxymatic_tests::{cgroup, leftovers};

/// Set for the copy of this program that plays the killed run.
const VICTIM: &str = "PROXYMATIC_TEST_VICTIM";

#[test]
fn hosts_reach_each_other_over_both_families() -> TestResult {
    let lab = Lab::start(3)?;
    let (one, three) = (lab.host(1).net(), lab.host(3).net());
    for address in [IpAddr::from(host_address(3)), host_address6(3).into()] {
        let listener = three.enter(|| TcpListener::bind((address, 9000)))??;
        let heard = thread::spawn(move || -> Result<String> {
            let mut heard = String::new();
            listener.accept()?.0.read_to_string(&mut heard)?;
            Ok(heard)
        });
        one.enter(|| -> Result<()> { Ok(TcpStream::connect((address, 9000))?.write_all(b"hello")?) })??;
        assert_eq!(heard.join().unwrap()?, "hello");
    }
    Ok(())
}

#[test]
fn host_has_no_route_out_and_does_not_forward() -> TestResult {
    let lab = Lab::start(1)?;
    let outside = SocketAddr::from(([192, 0, 2, 1], 80));
    let error = lab.host(1).net().enter(|| TcpStream::connect(outside).err())?.context("connected")?;
    assert_eq!(error.kind(), std::io::ErrorKind::NetworkUnreachable);
    let forwarding = lab.host(1).net().enter(|| fs::read_to_string("/proc/sys/net/ipv4/ip_forward"))??;
    assert_eq!(forwarding.trim(), "0");
    Ok(())
}

#[test]
fn process_runs_in_the_namespace_and_cgroup_of_its_host() -> TestResult {
    let lab = Lab::start(1)?;
    let host = lab.host(1);
    let replica = lab.replica(1, 8001, "a")?;
    let pid = replica.process.pid()?.as_raw();
    assert_eq!(host.cgroup().processes()?, [pid]);
    let namespace = fs::read_link(format!("/proc/{pid}/ns/net"))?;
    assert_ne!(namespace, fs::read_link("/proc/self/ns/net")?);
    Ok(())
}

#[test]
fn client_counts_answers_by_replica_and_failures() -> TestResult {
    let lab = Lab::start(2)?;
    let mut replica = lab.replica(2, 8001, "b")?;
    let url = format!("http://{}/", replica.address);
    let seen = lab.client(&["http", "--url", &url, "--count", "5", "--peer"])?;
    assert_eq!((seen.ok, seen.failed, seen.by_replica["b"], seen.peer[&replica.address]), (5, 0, 5, 5));
    replica.process.kill9()?;
    let seen = lab.client(&["http", "--url", &url, "--count", "5"])?;
    assert_eq!((seen.ok, seen.failed, seen.errors["ECONNREFUSED"]), (0, 5, 5));
    assert_eq!((seen.failures[0].during.as_str(), seen.failures[0].destination), ("connect", replica.address));
    Ok(())
}

#[test]
fn replica_after_sigterm_finishes_open_requests() -> TestResult {
    let lab = Lab::start(1)?;
    let mut replica = lab.replica(1, 8001, "a")?;
    // Much longer than it takes to see that the replica has the request.
    let url = format!("http://{}/slow?ms=10000", replica.address);
    let slow = thread::scope(|scope| -> Result<_> {
        let slow = scope.spawn(|| lab.client(&["http", "--url", &url]));
        let has_request = || -> Result<()> {
            let open = ["-Htni", "state", "established", "sport", "8001"];
            let said = lab.host(1).run(Path::new("ss"), &open, PATIENCE)?.stdout;
            // Received by the kernel, and no longer in its queue: the first column.
            let is_read = said.split_whitespace().next() == Some("0") && said.contains(" bytes_received:");
            ensure!(is_read, "{said}");
            Ok(())
        };
        eventually_ok("the replica has the slow request", PATIENCE, has_request)?;
        ensure!(replica.terminate()?.success(), "the replica failed");
        slow.join().map_err(|_| anyhow::anyhow!("client panicked"))?
    })?;
    assert_eq!((slow.ok, slow.failed), (1, 0), "{slow:?}");
    Ok(())
}

#[test]
fn constant_load_reports_while_it_runs_and_sums_up_at_the_end() -> TestResult {
    let lab = Lab::start(2)?;
    let replica = lab.replica(2, 8001, "b")?;
    let load = lab.load(&format!("http://{}/", replica.address), &["--threads", "2"])?;
    let early = load.reaches(1000)?;
    let all = load.finish()?;
    assert!(early.ok >= 1000 && all.ok >= early.ok && all.failed == 0, "{early:?} {all:?}");
    Ok(())
}

#[test]
fn simulated_marathon_obeys_commands_and_serves_other_hosts() -> TestResult {
    let lab = Lab::start(2)?;
    let sim = lab.sim()?;
    let tasks = sim.app("/demo/web", 1234, &[(1, 8001), (2, 8002)])?;
    let third = sim.task("/demo/web", 2, 8003)?;
    sim.state(&tasks[0], "TASK_KILLING")?;
    sim.state(&tasks[0], "TASK_KILLED")?;
    let marathon = SocketAddr::from((lab.host(1).address(), 8080));
    let listed = lab.host(2).call("GET", marathon, "/v2/apps?embed=apps.tasks", "")?;
    let here = [&tasks[0], &tasks[1], &third].map(|task| listed.contains(task.as_str()));
    assert_eq!(here, [false, true, true], "{listed}");
    Ok(())
}

#[test]
fn pins_are_in_a_bpffs_of_the_lab() -> TestResult {
    let lab = Lab::start(1)?;
    let statfs = nix::sys::statfs::statfs(&lab.bpffs())?;
    assert_eq!(statfs.filesystem_type(), nix::sys::statfs::BPF_FS_MAGIC);
    Ok(())
}

#[test]
fn dropping_the_lab_removes_everything() -> TestResult {
    let lab = Lab::start(2)?;
    let name = lab.run_dir().file_name().context("no name")?.to_string_lossy().into_owned();
    let replica = lab.replica(1, 8001, "a")?;
    let mut process = File::open(format!("/proc/{}/stat", replica.process.pid()?))?;
    // The process still runs, so removing the cgroup must end it.
    let _unfinished = lab.replica(2, 8001, "b")?;
    assert_eq!(traces(&name)?.len(), 5, "{:?}", traces(&name)?);
    drop((replica, lab));
    assert_eq!(traces(&name)?, Vec::<PathBuf>::new());
    // The open file stays that of this process, whoever has its pid by now.
    let error = process.read(&mut [0]).err().context("the process is still there")?;
    assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    Ok(())
}

#[test]
fn signal_removes_everything() -> TestResult {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (_logs, mut victim, name) = victim()?;
        victim.signal(signal)?;
        let status = victim.wait(PATIENCE)?;
        assert_eq!(status.code(), Some(128 + signal as i32));
        assert_eq!(traces(&name)?, Vec::<PathBuf>::new());
    }
    Ok(())
}

#[test]
fn remains_of_a_killed_run_are_removed_by_the_next() -> TestResult {
    let (_logs, mut victim, name) = victim()?;
    let replica = fs::read_to_string(cgroup::root()?.join(&name).join("host1/cgroup.procs"))?;
    // The open file stays that of this process, whoever has its pid later.
    let command = File::open(Path::new("/proc").join(replica.trim()).join("cmdline"))?;
    assert_eq!(command.read_at(&mut [0], 0)?, 1);
    // As long as its process lives, no other run removes the remains.
    assert_eq!(traces(&name)?.len(), 4);
    victim.kill9()?;
    // A concurrent test may start now and remove all or some of the remains.
    eventually_ok("nothing is left of the killed run", PATIENCE, || {
        leftovers::sweep();
        let left = traces(&name)?;
        ensure!(left.is_empty(), "{left:?}");
        // A zombie has no command line; when init reaps it does not matter.
        ensure!(command.read_at(&mut [0], 0).unwrap_or(0) == 0, "process {replica} lives");
        Ok(())
    })?;
    Ok(())
}

#[test]
fn namespace_name_with_special_characters_is_refused() {
    assert!(NetNs::create("").is_err());
    assert!(NetNs::create("../../proc/self/ns/net").is_err());
}

/// Not a test: the run that [`victim`] starts, which holds a lab until it is killed.
#[test]
#[ignore = "started by other tests"]
fn victim_holds_a_lab() -> TestResult {
    if env::var_os(VICTIM).is_none() {
        return Ok(());
    }
    let lab = Lab::start(1)?;
    let _replica = lab.replica(1, 8001, "a")?;
    println!("holding {}.", lab.run_dir().file_name().context("no name")?.display());
    loop {
        thread::park();
    }
}

/// Starts a second run of this program that holds a lab with a replica, and returns the name of that lab.
fn victim() -> Result<(tempfile::TempDir, Process, String)> {
    let logs = tempfile::tempdir()?;
    let mut command = Command::new(env::current_exe()?);
    command.args(["--ignored", "--exact", "--nocapture", "harness::victim_holds_a_lab"]).env(VICTIM, "1");
    let mut victim = Process::spawn("victim", command, logs.path())?;
    victim.said(".\n", PATIENCE)?;
    let said = victim.stdout()?;
    let name =
        said.split_once("holding ").and_then(|(_, rest)| rest.split_once(".\n")).context("no name")?.0.to_owned();
    Ok((logs, victim, name))
}

/// Returns what a lab of this name has on the machine: run directory, cgroup, a namespace per host and one for the
/// switch.
fn traces(name: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for room in [Path::new("/run"), Path::new("/run/netns"), cgroup::root()?] {
        for entry in fs::read_dir(room)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name)) {
                found.push(path);
            }
        }
    }
    Ok(found)
}
