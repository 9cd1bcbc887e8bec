//! Runs tests, each in a process of its own: a test that aborts or hangs ends no other one, and its output and its
//! duration are its own.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{history::History, load::Load, programs::Test};
use crate::{
    progress::human,
    report::{Ran, Report, Verdict},
    workspace,
};

/// Timeout of a test, which then counts as hanging.
const TIMEOUT: Duration = Duration::from_secs(600);
/// After SIGTERM a test removes its namespaces and processes; SIGKILL follows after this time.
const KILL_AFTER: Duration = Duration::from_secs(15);
/// The exit status of timeout(1) after a timeout.
const TIMED_OUT: i32 = 124;
/// A test with this prefix measures. It runs alone, after all others.
const MEASURES: &str = "measured_";

/// Options of a test run.
#[derive(Debug)]
pub(crate) struct Runner<'a> {
    /// The tier of the tests.
    pub(crate) tier: &'a str,
    /// Number of tests at a time.
    pub(crate) at_a_time: usize,
    /// Keep all CPUs busy meanwhile.
    pub(crate) loaded: bool,
    /// Start no further test after a failure.
    pub(crate) fail_fast: bool,
    /// Variables for the tests.
    pub(crate) environment: Vec<(&'static str, PathBuf)>,
    /// Durations of tests in earlier runs.
    pub(crate) history: &'a History,
}

/// State that the workers share.
struct Progress {
    waiting: VecDeque<Test>,
    ran: Vec<Ran>,
    has_failed: bool,
    /// The time of tests that have not ended, by earlier runs.
    left: Duration,
}

impl Runner<'_> {
    /// Runs the tests, longest first by earlier runs, and prints a line for each that ends.
    ///
    /// # Errors
    /// The folder for logs cannot be made.
    pub(crate) fn run(&self, tests: Vec<Test>) -> Result<Report> {
        let logs = workspace::target_dir().join("test-logs").join(self.tier);
        if logs.exists() {
            fs::remove_dir_all(&logs).with_context(|| format!("cannot empty {}", logs.display()))?;
        }
        fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
        let all = tests.len();
        let (measured, mut others): (Vec<_>, Vec<_>) = tests.into_iter().partition(|test| measures(&test.name));
        // The longest first, so that none of them is left to run alone at the end.
        others.sort_by_key(|test| std::cmp::Reverse(self.history.test(self.tier, &test.name)));
        let load = self.loaded.then(Load::start);
        let mut ran = Vec::new();
        for (tests, at_a_time) in [(others, self.at_a_time), (measured, 1)] {
            if !self.fail_fast || ran.iter().all(|it: &Ran| !matches!(it.verdict, Verdict::Failed(_))) {
                ran = self.run_side_by_side(tests, at_a_time, ran, all, &logs);
            }
        }
        drop(load);
        Ok(Report { tests: ran, errors: Vec::new() })
    }

    fn run_side_by_side(&self, tests: Vec<Test>, at_a_time: usize, ran: Vec<Ran>, all: usize, logs: &Path) -> Vec<Ran> {
        let left = tests.iter().filter_map(|test| self.history.test(self.tier, &test.name)).sum();
        let progress = Mutex::new(Progress { waiting: tests.into(), ran, has_failed: false, left });
        thread::scope(|scope| {
            for _ in 0..at_a_time {
                scope.spawn(|| {
                    while let Some(test) = self.next(&progress) {
                        let ran = self.run_one(&test, logs);
                        self.ended(&mut lock(&progress), ran, all, at_a_time);
                    }
                });
            }
        });
        progress.into_inner().unwrap_or_else(PoisonError::into_inner).ran
    }

    fn next(&self, progress: &Mutex<Progress>) -> Option<Test> {
        let mut progress = lock(progress);
        if self.fail_fast && progress.has_failed { None } else { progress.waiting.pop_front() }
    }

    fn ended(&self, progress: &mut Progress, ran: Ran, all: usize, at_a_time: usize) {
        progress.left = progress.left.saturating_sub(self.history.test(self.tier, &ran.name).unwrap_or_default());
        progress.has_failed |= matches!(ran.verdict, Verdict::Failed(_));
        let left = progress.left / u32::try_from(at_a_time).unwrap_or(1);
        let left = if left.is_zero() { String::new() } else { format!(", about {} left", human(left)) };
        println!("{}", line(&ran, progress.ran.len() + 1, all, &left));
        if let (Verdict::Failed(_), Some(log)) = (&ran.verdict, &ran.log) {
            print_log(log);
        }
        progress.ran.push(ran);
    }

    fn run_one(&self, test: &Test, logs: &Path) -> Ran {
        let log = logs.join(test.name.replace("::", ".")).with_added_extension("log");
        let begun = Instant::now();
        let status = start(test, &self.environment, &log);
        let output = fs::read(&log).unwrap_or_default();
        let verdict = verdict(status, &String::from_utf8_lossy(&output));
        let keep = matches!(verdict, Verdict::Failed(_));
        if !keep {
            // If removing it fails, it only takes space.
            let _ = fs::remove_file(&log);
        }
        let again = format!("{} --filter {}", self.tier, test.name);
        Ran { name: test.name.clone(), verdict, took: begun.elapsed(), log: keep.then_some(log), again }
    }
}

/// Whether a test measures, by its name.
fn measures(name: &str) -> bool {
    name.rsplit("::").next().is_some_and(|function| function.starts_with(MEASURES))
}

/// Runs the test as `cargo test` would, with its output in a file.
fn start(test: &Test, environment: &[(&'static str, PathBuf)], log: &Path) -> io::Result<ExitStatus> {
    let output = File::create(log)?;
    // In the foreground: Ctrl-C on the terminal reaches the test too, and only the test itself gets SIGTERM, after
    // which it ends the processes that it has started in order.
    let mut command = Command::new("timeout");
    command
        .arg("--foreground")
        .arg(format!("--kill-after={}", KILL_AFTER.as_secs()))
        .arg(TIMEOUT.as_secs().to_string());
    command.arg(&test.program.path).args([
        "--exact",
        &test.path,
        "--include-ignored",
        "--nocapture",
        "--test-threads=1",
    ]);
    // `expect-test` finds the sources by the second variable.
    command.current_dir(&test.program.folder).env("CARGO_MANIFEST_DIR", &test.program.folder);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command.stdin(std::process::Stdio::null()).stdout(output.try_clone()?).stderr(output);
    command.status()
}

/// Returns the verdict, from the exit status of timeout(1) and the output of the test.
fn verdict(status: io::Result<ExitStatus>, output: &str) -> Verdict {
    let status = match status {
        Ok(status) => status,
        Err(error) => return Verdict::Failed(format!("cannot be started: {error}")),
    };
    if status.code() == Some(TIMED_OUT) {
        return Verdict::Failed(format!("no end after {} s", TIMEOUT.as_secs()));
    }
    if !status.success() {
        let panic = output.lines().find(|line| line.starts_with("thread '") && line.contains("panicked at "));
        let place = panic.and_then(|line| line.split("panicked at ").nth(1)).map(|it| it.trim_end_matches(':'));
        return Verdict::Failed(place.map_or_else(|| status.to_string(), |place| format!("panicked at {place}")));
    }
    Verdict::of_success(output)
}

/// `  12/291  ok         3.2 s  module::test, about 4 min left`.
fn line(ran: &Ran, nth: usize, all: usize, left: &str) -> String {
    let word = match &ran.verdict {
        Verdict::Passed => "ok",
        Verdict::Skipped(_) => "skipped",
        Verdict::Failed(_) => "FAILED",
    };
    format!("{nth:>5}/{all}  {word:<7}{:>6.1} s  {}{left}", ran.took.as_secs_f32(), ran.name)
}

/// Prints the output of a failed test. On a terminal it prints the end only: the file has all of it.
fn print_log(log: &Path) {
    const LINES: usize = 60;
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    let first = if io::stdout().is_terminal() { lines.len().saturating_sub(LINES) } else { 0 };
    println!("---- {}", log.display());
    lines[first..].iter().for_each(|line| println!("    {line}"));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    const OK: &str = "test result: ok. 1 passed; 0 failed; 0 ignored";

    fn exit(code: i32) -> io::Result<ExitStatus> {
        Ok(ExitStatus::from_raw(code << 8))
    }

    #[test]
    fn verdict_has_the_reason_of_a_failure() {
        assert_eq!(verdict(exit(0), OK), Verdict::Passed);
        assert_eq!(verdict(exit(0), "0 passed"), Verdict::Failed("there is no such test".into()));
        assert_eq!(verdict(exit(124), ""), Verdict::Failed("no end after 600 s".into()));
        let panicked = "thread 'a' (7) panicked at tests/a.rs:3:5:\nboom";
        assert_eq!(verdict(exit(101), panicked), Verdict::Failed("panicked at tests/a.rs:3:5".into()));
        assert_eq!(verdict(exit(101), ""), Verdict::Failed("exit status: 101".into()));
        assert_eq!(verdict(Ok(ExitStatus::from_raw(11)), ""), Verdict::Failed("signal: 11 (SIGSEGV)".into()));
    }

    #[test]
    fn skipped_test_is_not_counted_as_passed() {
        let output = format!("running 1 test\n\nSKIPPED tcx: needs Linux 6.6\n{OK}");
        assert_eq!(verdict(exit(0), &output), Verdict::Skipped(vec!["tcx: needs Linux 6.6".into()]));
    }

    #[test]
    fn measuring_tests_are_recognized_by_function_name() {
        assert!(measures("replica_failures::measured_crash_costs_one_connect"));
        assert!(!measures("measured_things::crash_is_noticed"));
    }

    #[test]
    fn progress_line_has_count_verdict_and_time() {
        let ran = Ran {
            name: "a::b".into(),
            verdict: Verdict::Passed,
            took: Duration::from_millis(3_210),
            log: None,
            again: "netns --filter a::b".into(),
        };
        assert_eq!(line(&ran, 12, 291, ", about 4 min left"), "   12/291  ok        3.2 s  a::b, about 4 min left");
    }
}
