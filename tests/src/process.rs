//! A command that a test has started: its output is kept in files and echoed if the test fails; the command ends on
//! drop.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{env, thread};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::cleanup::Guard;
use crate::eventually::{eventually, eventually_ok};

/// Time between SIGTERM and SIGKILL, if the exit status does not matter.
const GRACE: Duration = Duration::from_secs(2);
/// Time that the kernel may take to end a process after SIGKILL.
const KILLED: Duration = Duration::from_secs(30);

/// A running command; dropping it ends it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: PathBuf,
    stderr: PathBuf,
    _guard: Guard,
}

/// The result of a command that has ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Shared with the signal thread, which ends the process if this thread cannot.
type Child = Arc<Mutex<Option<std::process::Child>>>;

impl Process {
    /// Starts `command`, with its output in `LOGS/NAME-N.out` and `LOGS/NAME-N.err`.
    pub fn spawn(name: &str, mut command: Command, logs: &Path) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let file = logs.join(format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let (stdout, stderr) = (file.with_added_extension("out"), file.with_added_extension("err"));
        command.stdin(Stdio::piped()).stdout(create(&stdout)?).stderr(create(&stderr)?);
        // Ctrl-C is for the harness, which then ends its processes in order.
        command.process_group(0);
        let child = Child::default();
        let (slot, doomed) = (child.clone(), child.clone());
        let make = || {
            let mut started = command.spawn().with_context(|| format!("start {name}: {command:?}"))?;
            let stdin = started.stdin.take();
            *lock(&slot) = Some(started);
            Ok(stdin)
        };
        let (guard, stdin) = Guard::new(make, move || end(&doomed))?;
        Ok(Self { name: name.to_owned(), child, stdin, stdout, stderr, _guard: guard })
    }

    /// Returns its standard output so far.
    pub fn stdout(&self) -> Result<String> {
        read(&self.stdout)
    }

    /// Returns its standard error so far.
    pub fn stderr(&self) -> Result<String> {
        read(&self.stderr)
    }

    /// Waits until `words` are in its standard output; fails at once if it ends before.
    pub fn said(&mut self, words: &str, timeout: Duration) -> Result<()> {
        let what = format!("{} prints {words:?}", self.name);
        let alive = eventually(&what, timeout, || {
            let ended = self.try_wait().ok()?;
            if self.stdout().ok()?.contains(words) { Some(Ok(())) } else { ended.map(Err) }
        });
        match alive {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => bail!("{} ended ({status}) before it printed {words:?}\n{}", self.name, self.log()),
            Err(error) => Err(error.context(self.log())),
        }
    }

    /// Counts these words in its standard error so far.
    pub fn logged(&self, words: &str) -> Result<usize> {
        Ok(self.stderr()?.matches(words).count())
    }

    /// Waits until its standard error contains these words this many times.
    pub fn logs(&self, words: &str, times: usize, timeout: Duration) -> Result<()> {
        let what = format!("{} logs {words:?} {times} times", self.name);
        eventually_ok(&what, timeout, || {
            let now = self.logged(words)?;
            ensure!(now >= times, "{now} times");
            Ok(())
        })
        .with_context(|| self.log())
    }

    /// Waits until it has used this much CPU time or blocks: a measure of its progress, however busy the machine is.
    pub fn works_for(&mut self, time: Duration, timeout: Duration) -> Result<()> {
        let mut before = None;
        eventually_ok(&format!("{} works for {time:?}", self.name), timeout, || {
            if self.try_wait()?.is_some() {
                return Ok(());
            }
            let now = self.progress()?;
            let is_waiting = before.replace(now) == Some(now) && now.0;
            ensure!(now.1 >= time || is_waiting, "{now:?}");
            Ok(())
        })
    }

    /// Returns whether its first thread blocks, and the CPU time of all threads: proc_pid_stat(5).
    fn progress(&self) -> Result<(bool, Duration)> {
        let path = format!("/proc/{}/stat", self.pid()?);
        let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        // The process name before these fields may contain blanks.
        let fields: Vec<_> = stat.rsplit_once(')').with_context(|| stat.clone())?.1.split_whitespace().collect();
        let ticks: u64 = fields[11..=12].iter().map(|it| it.parse::<u64>()).sum::<Result<_, _>>()?;
        let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no CLK_TCK")?;
        Ok((fields[0] == "S", Duration::from_secs(1) * ticks.try_into()? / per_second.try_into()?))
    }

    /// Returns the exit status, if it has ended.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        let mut slot = lock(&self.child);
        slot.as_mut().context("never started")?.try_wait().with_context(|| format!("wait for {}", self.name))
    }

    /// Waits for its end.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let what = format!("{} ends", self.name);
        eventually_ok(&what, timeout, || self.try_wait()?.context("still running"))
    }

    /// Writes a line to its standard input.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().with_context(|| format!("the input of {} is closed", self.name))?;
        let said = writeln!(stdin, "{line}");
        said.with_context(|| format!("tell {} {line:?}\n{}", self.name, self.log()))
    }

    /// Closes its standard input, after which some programs finish.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Sends SIGTERM and waits for its end.
    pub fn terminate(&mut self, timeout: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(timeout)
    }

    /// Kills it by SIGKILL.
    pub fn kill9(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGKILL)?;
        self.wait(KILLED)
    }

    /// Sends a signal; an error if the process has already ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.try_wait()? {
            bail!("{} has already ended ({status})\n{}", self.name, self.log());
        }
        // It was not reaped before this, so the pid is still its own.
        kill(self.pid()?, signal).with_context(|| format!("send {signal} to {}", self.name))
    }

    /// Its process id.
    pub fn pid(&self) -> Result<Pid> {
        let slot = lock(&self.child);
        Ok(Pid::from_raw(slot.as_ref().context("never started")?.id().try_into()?))
    }

    /// Waits for its end and returns its result; removes the files.
    pub fn finish(mut self, timeout: Duration) -> Result<Finished> {
        let status = self.wait(timeout).map_err(|error| anyhow!("{error:#}\n{}", self.log()))?;
        let left = Finished { status, stdout: self.stdout()?, stderr: self.stderr()? };
        fs::remove_file(&self.stdout)?;
        fs::remove_file(&self.stderr)?;
        Ok(left)
    }

    /// Returns both outputs under headings.
    #[must_use]
    pub fn log(&self) -> String {
        let part = |name: &str, text: Result<String>| match text {
            Ok(text) if text.trim().is_empty() => String::new(),
            Ok(text) => format!("--- {name} of {} ---\n{}\n", self.name, text.trim_end()),
            Err(error) => format!("--- {name} of {}: {error:#} ---\n", self.name),
        };
        part("stdout", self.stdout()) + &part("stderr", self.stderr())
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "a failing test echoes the logs of what it had started")]
    fn drop(&mut self) {
        if thread::panicking() {
            eprint!("{}", self.log());
        }
    }
}

impl Finished {
    /// Returns itself on exit status 0, else an error with its output.
    pub fn well(self) -> Result<Self> {
        ensure!(self.status.success(), "{}\n{}{}", self.status, self.stdout, self.stderr);
        Ok(self)
    }
}

/// Sends SIGTERM, then SIGKILL, then reaps it. A process that has ended is fine.
fn end(child: &Child) -> Result<()> {
    let mut slot = lock(child);
    let Some(child) = slot.as_mut() else { return Ok(()) };
    if child.try_wait()?.is_some() {
        return Ok(());
    }
    kill(Pid::from_raw(child.id().try_into()?), Signal::SIGTERM)?;
    if eventually("end", GRACE, || child.try_wait().ok().flatten()).is_err() {
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}

fn lock(child: &Child) -> MutexGuard<'_, Option<std::process::Child>> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("create {}", path.display()))
}

fn read(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Finds a program of this project: in `PROXYMATIC_BIN_DIR`, else beside this program, else one folder up from a test
/// binary.
pub fn binary(name: &str) -> Result<PathBuf> {
    let rooms = match env::var_os("PROXYMATIC_BIN_DIR") {
        Some(room) if !room.is_empty() => vec![PathBuf::from(room)],
        _ => env::current_exe()?.ancestors().skip(1).take(2).map(Path::to_path_buf).collect(),
    };
    rooms.iter().map(|room| room.join(name)).find(|path| path.is_file()).with_context(|| {
        format!("no program {name} in {rooms:?}; build it (cargo build --workspace) or set PROXYMATIC_BIN_DIR")
    })
}
