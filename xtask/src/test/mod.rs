//! `cargo xtask test [TIER...]`: all checks, fast ones first. A tier that fails does not hide the others.

mod build;
mod history;
mod load;
mod programs;
mod runner;
mod tier;

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum as _};

use self::{
    build::Build,
    history::History,
    tier::{Context, Tier},
};
use crate::{
    command::Failed,
    progress::human,
    report::{self, Report},
    vm,
};

/// How many of the slowest tests a run lists.
const SLOWEST: usize = 20;

/// Arguments of the task.
#[derive(Args, Default)]
pub(crate) struct Test {
    /// Tiers to run, always in the order below; all by default, with vm as `ends`. A kernel (6.1, newest) means tier vm
    /// on that kernel, `ends` the oldest and the newest with few tests; vm alone means four kernels.
    #[arg(value_name = "TIER|KERNEL", value_parser = Word::parse)]
    tiers: Vec<Word>,
    /// Run only the tests whose name contains this.
    #[arg(long)]
    filter: Option<String>,
    /// Keep all CPUs busy while tests run, to find those that depend on time.
    #[arg(long)]
    loaded: bool,
    /// Stop at the first test or tier that fails.
    #[arg(long)]
    fail_fast: bool,
}

/// An argument of the command line.
#[derive(Clone, PartialEq)]
enum Word {
    Tier(Tier),
    Kernel(String),
}

/// The oldest and the newest kernel, with few tests.
const ENDS: &str = "ends";

impl Word {
    fn parse(word: &str) -> Result<Self> {
        if word == ENDS || vm::is_named(word)? {
            return Ok(Self::Kernel(word.to_owned()));
        }
        let tier = Tier::from_str(word, false);
        let names: Vec<_> = Tier::value_variants().iter().map(|tier| tier.name()).collect();
        tier.map(Self::Tier).map_err(|_| anyhow!("tiers are {}; a kernel is named as 6.1 is", names.join(", ")))
    }
}

impl Test {
    pub(crate) fn run(&self) -> Result<()> {
        let tiers = self.chosen();
        let mut history = History::read();
        let needs = |what: fn(Tier) -> bool| tiers.iter().any(|tier| what(*tier));
        let build = Build::new(needs(Tier::needs_objects), needs(Tier::needs_variants));
        let kernels = self.kernels();
        let (begun, mut done) = (Instant::now(), Vec::new());
        for (nth, tier) in tiers.iter().enumerate() {
            println!("\n== {}", header(&tiers, nth, begun.elapsed(), &history));
            let (filter, start) = (self.filter.as_deref(), Instant::now());
            let Self { loaded, fail_fast, .. } = *self;
            let context = Context { filter, kernels: &kernels, loaded, fail_fast, history: &history, build: &build };
            let report = tier.run(&context).unwrap_or_else(|error| Report::from_result(Err(error)));
            report.errors.iter().for_each(|error| eprintln!("{error}"));
            history.note(&tier.name(), start.elapsed(), &report, filter.is_none());
            let stop = fail_fast && !report.is_ok();
            done.push((tier.name(), start.elapsed(), report));
            if stop {
                break;
            }
        }
        history.write()?;
        println!("\n{}", report::table(&done));
        let slowest = report::slowest(&done, SLOWEST);
        if self.filter.is_none() && !slowest.is_empty() {
            println!("\nthe {} slowest tests:\n{}", slowest.len(), slowest.join("\n"));
        }
        let failed: Vec<_> =
            done.iter().filter(|(_, _, report)| !report.is_ok()).map(|(tier, ..)| tier.as_str()).collect();
        if failed.is_empty() { Ok(()) } else { Err(anyhow!(Failed(format!("failed: {}", failed.join(", "))))) }
    }

    fn chosen(&self) -> Vec<Tier> {
        let named = |tier: Tier| {
            self.tiers.iter().any(|word| match word {
                Word::Tier(it) => *it == tier,
                Word::Kernel(_) => tier == Tier::Vm,
            })
        };
        let all = Tier::value_variants().iter().copied();
        all.filter(|tier| self.tiers.is_empty() || named(*tier)).collect()
    }

    fn kernels(&self) -> vm::Which {
        let series = |word: &Word| match word {
            Word::Tier(_) => None,
            Word::Kernel(series) => Some(series.clone()),
        };
        let named: Vec<_> = self.tiers.iter().filter_map(series).collect();
        match named.as_slice() {
            // An emulated kernel takes minutes for all of its tests, so all four run on request only.
            [] if self.tiers.is_empty() => vm::Which::Ends,
            [] => vm::Which::All,
            [ends] if ends == ENDS => vm::Which::Ends,
            _ => vm::Which::Named(named),
        }
    }
}

/// `8 of 12: netns; 13 min elapsed, about 12 min left`.
fn header(tiers: &[Tier], nth: usize, elapsed: Duration, history: &History) -> String {
    let name = tiers[nth].name();
    let place = format!("{} of {}: {name}; {} elapsed", nth + 1, tiers.len(), human(elapsed));
    // If a tier has no history the sum would be too small.
    let left: Option<Duration> = tiers[nth..].iter().map(|tier| history.tier(&tier.name())).sum();
    left.map_or(place.clone(), |left| format!("{place}, about {} left", human(left)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(words: &[&str]) -> Test {
        Test { tiers: words.iter().map(|word| Word::parse(word).unwrap()).collect(), ..Test::default() }
    }

    fn names(words: &[&str]) -> Vec<String> {
        test(words).chosen().into_iter().map(Tier::name).collect()
    }

    #[test]
    fn all_tiers_run_by_default_and_vm_with_few_tests() {
        let all: Vec<_> = Tier::value_variants().iter().map(|tier| tier.name()).collect();
        assert_eq!(names(&[]), all);
        assert_eq!(all.last().unwrap(), "vm");
        assert!(matches!(test(&[]).kernels(), vm::Which::Ends));
    }

    #[test]
    fn contributing_lists_all_tiers_in_their_order() {
        let text = std::fs::read_to_string(crate::workspace::root().join("CONTRIBUTING.md")).unwrap();
        let (_, table) = text.split_once("| tier | ").unwrap();
        let rows = table.lines().skip(2).map_while(|row| row.strip_prefix("| ")?.split(" | ").next());
        assert_eq!(rows.flat_map(|tiers| tiers.split(", ")).collect::<Vec<_>>(), names(&[]));
    }

    #[test]
    fn named_tiers_run_once_and_fast_ones_first() {
        assert_eq!(names(&["netns", "fmt", "netns"]), ["fmt", "netns"]);
    }

    #[test]
    fn kernel_argument_selects_vm_and_ends_means_oldest_and_newest() {
        assert_eq!(names(&["6.1", "fmt"]), ["fmt", "vm"]);
        assert!(matches!(test(&["6.1", "newest"]).kernels(), vm::Which::Named(it) if it == ["6.1", "newest"]));
        assert!(matches!(test(&["vm"]).kernels(), vm::Which::All));
        assert!(names(&["ends"]) == ["vm"] && matches!(test(&["ends"]).kernels(), vm::Which::Ends));
        assert!(Word::parse("vmm").err().unwrap().to_string().contains("dist, vm; a kernel"));
    }

    #[test]
    fn tier_header_shows_the_time_left_only_if_known() {
        let mut history = History::default();
        let tiers = [Tier::Fmt, Tier::Tidy];
        assert_eq!(header(&tiers, 0, Duration::ZERO, &history), "1 of 2: fmt; 0 s elapsed");
        history.note("fmt", Duration::from_secs(1), &Report::default(), true);
        history.note("tidy", Duration::from_secs(200), &Report::default(), true);
        assert_eq!(header(&tiers, 1, Duration::from_secs(2), &history), "2 of 2: tidy; 2 s elapsed, about 3 min left");
    }
}
