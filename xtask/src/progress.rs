//! Progress of a long task: the current step, the elapsed time, and the remaining time by the last run.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::workspace;

/// The steps of one task, in order. Each is printed when it begins.
#[derive(Debug)]
pub(crate) struct Steps {
    task: &'static str,
    names: &'static [&'static str],
    begun: Instant,
    /// Seconds of each step in the last run, by `TASK: STEP`.
    last: BTreeMap<String, f32>,
}

impl Steps {
    /// A task with these steps. Steps that are already done take no time, and are printed too.
    pub(crate) fn new(task: &'static str, names: &'static [&'static str]) -> Self {
        let last = fs::read(path()).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self { task, names, begun: Instant::now(), last: last.unwrap_or_default() }
    }

    /// Runs one step, by its name.
    ///
    /// # Errors
    /// The error of the step.
    pub(crate) fn step<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("{}", self.line(name, self.begun.elapsed()));
        let begun = Instant::now();
        let done = work()?;
        self.last.insert(self.key(name), begun.elapsed().as_secs_f32());
        if let Ok(bytes) = serde_json::to_vec_pretty(&self.last) {
            // Without the file the next run cannot estimate the remaining time.
            let _ = fs::create_dir_all(workspace::target_dir()).and_then(|()| fs::write(path(), bytes));
        }
        Ok(done)
    }

    fn key(&self, name: &str) -> String {
        format!("{}: {name}", self.task)
    }

    /// `[2/4] bpf-linker; 12 s elapsed, about 3 min left`.
    fn line(&self, name: &str, elapsed: Duration) -> String {
        let nth = self.names.iter().position(|it| *it == name).unwrap_or_default();
        let line = format!("[{}/{}] {name}; {} elapsed", nth + 1, self.names.len(), human(elapsed));
        let left: Option<f32> = self.names[nth..].iter().map(|it| self.last.get(&self.key(it))).sum();
        left.map_or(line.clone(), |left| format!("{line}, about {} left", human(Duration::from_secs_f32(left))))
    }
}

fn path() -> PathBuf {
    workspace::target_dir().join("step-times.json")
}

/// A duration for people: `40 s` or `12 min`.
pub(crate) fn human(time: Duration) -> String {
    let seconds = time.as_secs_f32().round();
    if seconds < 100.0 { format!("{seconds} s") } else { format!("{} min", (seconds / 60.0).round()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shown_in_seconds_or_minutes() {
        assert_eq!([1, 99, 100, 1500].map(|it| human(Duration::from_secs(it))), ["1 s", "99 s", "2 min", "25 min"]);
    }

    #[test]
    fn time_left_is_shown_once_every_step_is_timed() {
        let last = [("demo: b".to_owned(), 30.0)].into();
        let mut steps = Steps { task: "demo", names: &["a", "b", "c"], begun: Instant::now(), last };
        assert_eq!(steps.line("a", Duration::ZERO), "[1/3] a; 0 s elapsed");
        steps.last.insert("demo: c".into(), 100.0);
        assert_eq!(steps.line("b", Duration::from_secs(7)), "[2/3] b; 7 s elapsed, about 2 min left");
    }
}
