//! `cargo xtask test [TIER...]`: every check there is, fast ones first, stopping at the first that fails.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};

use crate::{
    build_ebpf,
    command::{self, Failed},
    dist, image, setup, tidy, variants, vm,
    workspace::{self, cargo},
};

/// Arguments of the task.
#[derive(Args, Default)]
pub(crate) struct Test {
    /// Tiers to run, in the order below whatever order they are named in; all when none is named, vm with `ends`. A kernel
    /// (6.1, newest) stands for the tier vm on that kernel, `ends` for the oldest and the newest with few tests; vm alone is
    /// on four kernels.
    #[arg(value_name = "TIER|KERNEL", value_parser = Word::parse)]
    tiers: Vec<Word>,
    /// Run only the tests whose name contains this.
    #[arg(long)]
    filter: Option<String>,
}

/// What is named on the command line.
#[derive(Clone, PartialEq)]
enum Word {
    Tier(Tier),
    Kernel(String),
}

/// What stands for the oldest and the newest kernel, with few tests.
const ENDS: &str = "ends";

/// The order here is the order of running: the sooner a tier answers, the earlier it comes.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Tier {
    /// Formatting.
    Fmt,
    /// Rules of layout (`cargo xtask tidy`).
    Tidy,
    /// Lints, none tolerated.
    Clippy,
    /// Everything that runs on a plain machine with plain Rust.
    Host,
    /// The harness and the simulated Marathon, without root.
    Sim,
    /// Sources other than Marathon against the real thing: etcd.
    Etcd,
    /// The maps in the eBPF object are the declared ones; needs the eBPF toolchain.
    Wire,
    /// End to end in network namespaces; needs root.
    Netns,
    /// The status endpoint, seen with a real browser and a real Prometheus; needs root.
    Surface,
    /// The image, the local cluster, containers on a Docker bridge; needs root.
    Docker,
    /// What `cargo xtask dist` makes: scripts and units are checked, the Debian package is installed and removed; needs root.
    Dist,
    /// Debian's kernels in virtual machines.
    Vm,
}

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
        let mut times = Vec::new();
        for tier in self.chosen() {
            let start = Instant::now();
            let outcome = tier.run(self.filter.as_deref(), &self.kernels());
            times.push((tier, start.elapsed(), outcome.is_ok()));
            if let Err(error) = outcome {
                print_table(&times);
                eprintln!("{error:#}");
                return Err(anyhow!(Failed(farewell(tier))));
            }
        }
        print_table(&times);
        Ok(())
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
            // Translated, a kernel takes minutes with all of its tests: four are for who asks.
            [] if self.tiers.is_empty() => vm::Which::Ends,
            [] => vm::Which::All,
            [ends] if ends == ENDS => vm::Which::Ends,
            _ => vm::Which::Named(named),
        }
    }
}

impl Tier {
    fn run(self, filter: Option<&str>, kernels: &vm::Which) -> Result<()> {
        match self {
            Self::Fmt => {
                command::run(cargo().args(["fmt", "--all", "--check"]))?;
                command::run(cargo().args(["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]))
            }
            Self::Tidy => tidy::run(),
            Self::Clippy => {
                setup::build()?;
                command::run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
                // A workspace of its own that nothing else here compiles. Without what it links: that is C++, and minutes.
                let fuzz = ["--manifest-path", "fuzz/Cargo.toml", "--target-dir", "target", "--no-default-features"];
                command::run(cargo().arg("clippy").args(fuzz).args(["--locked", "--", "-D", "warnings"]))
            }
            Self::Host => {
                setup::build()?;
                command::run(cargo().arg("test").args(filter))
            }
            Self::Sim => command::run(cargo().args(["test", "-p", "proxymatic-tests", "--lib", "--bins"]).args(filter)),
            Self::Etcd => etcd(filter),
            Self::Wire => wire(filter),
            Self::Netns => netns(filter),
            Self::Surface => surface(filter),
            Self::Docker => docker(filter),
            Self::Dist => dist(filter),
            Self::Vm => vm::run(kernels, filter),
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |it| it.get_name().to_owned())
    }
}

fn etcd(filter: Option<&str>) -> Result<()> {
    setup::etcd()?;
    let mut test = cargo();
    // Elsewhere these tests are marked as ignored: a plain machine has no etcd.
    test.args(["test", "-p", "proxymatic-user", "--test", "registrator"])
        .args(filter)
        .args(["--", "--include-ignored"]);
    command::run(&mut test)
}

fn wire(filter: Option<&str>) -> Result<()> {
    build_ebpf::run()?;
    let mut test = cargo();
    test.args(["test", "-p", "proxymatic-user", "--test", "wire"])
        .args(filter)
        // Without an object there is nothing to read, so elsewhere these tests may be marked as ignored.
        .args(["--", "--include-ignored"]);
    command::run(&mut test)
}

fn netns(filter: Option<&str>) -> Result<()> {
    workspace::need_root("test netns")?;
    setup::tools()?;
    setup::programs()?;
    variants::build()?;
    // Most tests wait most of the time; what measures has the machine for itself (`alone` of the lab).
    with_root("netns", 2, filter)
}

fn surface(filter: Option<&str>) -> Result<()> {
    workspace::need_root("test surface")?;
    setup::tools()?;
    setup::surface()?;
    with_root("surface", 1, filter)
}

fn docker(filter: Option<&str>) -> Result<()> {
    workspace::need_root("test docker")?;
    setup::tools()?;
    setup::docker()?;
    let images = image::prepare()?;
    command::run(with_root_command("docker", 1, filter)?.env("PROXYMATIC_IMAGE_DIR", images))
}

fn dist(filter: Option<&str>) -> Result<()> {
    workspace::need_root("test dist")?;
    setup::tools()?;
    setup::dist()?;
    dist::check_scripts()?;
    let made = dist::make()?;
    let debian = dist::debian_root()?;
    let binaries = workspace::build_release(&["proxymatic-tests"])?;
    let mut test: Command = cargo();
    test.args(["test", "-p", "proxymatic-tests", "--release", "--test", "dist"])
        .args(filter)
        .args(["--", "--test-threads=1"])
        .env("PROXYMATIC_BIN_DIR", binaries)
        .env("PROXYMATIC_DIST", made)
        .env("PROXYMATIC_DEBIAN", debian);
    command::run(&mut test)
}

/// One of the tiers that attach what is built now, with so many tests at a time.
fn with_root(tier: &str, threads: u32, filter: Option<&str>) -> Result<()> {
    command::run(&mut with_root_command(tier, threads, filter)?)
}

fn with_root_command(tier: &str, threads: u32, filter: Option<&str>) -> Result<Command> {
    build_ebpf::run()?;
    let binaries = workspace::build_release(&["proxymatic-user", "proxymatic-tests"])?;
    let mut test: Command = cargo();
    test.args(["test", "-p", "proxymatic-tests", "--release", "--test", tier])
        .args(filter)
        .args(["--", &format!("--test-threads={threads}")])
        .env("PROXYMATIC_BIN_DIR", binaries);
    Ok(test)
}

fn print_table(times: &[(Tier, Duration, bool)]) {
    println!();
    for (tier, time, well) in times {
        let verdict = if *well { "ok" } else { "FAILED" };
        println!("{:<8}{:>7.1} s  {verdict}", tier.name(), time.as_secs_f32());
    }
}

fn farewell(tier: Tier) -> String {
    let name = tier.name();
    format!("failed: {name}; run it alone: cargo xtask test {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(words: &[&str]) -> Test {
        Test { tiers: words.iter().map(|word| Word::parse(word).unwrap()).collect(), filter: None }
    }

    fn names(words: &[&str]) -> Vec<String> {
        test(words).chosen().into_iter().map(Tier::name).collect()
    }

    #[test]
    fn all_tiers_run_when_none_is_named_and_vm_then_with_few_tests() {
        let all: Vec<_> = Tier::value_variants().iter().map(|tier| tier.name()).collect();
        assert_eq!(names(&[]), all);
        assert_eq!(all.last().unwrap(), "vm");
        assert!(matches!(test(&[]).kernels(), vm::Which::Ends));
    }

    #[test]
    fn named_tiers_run_once_and_fast_ones_first() {
        assert_eq!(names(&["netns", "fmt", "netns"]), ["fmt", "netns"]);
    }

    #[test]
    fn a_kernel_stands_for_the_tier_vm_and_ends_for_the_oldest_and_the_newest() {
        assert_eq!(names(&["6.1", "fmt"]), ["fmt", "vm"]);
        assert!(matches!(test(&["6.1", "newest"]).kernels(), vm::Which::Named(it) if it == ["6.1", "newest"]));
        assert!(matches!(test(&["vm"]).kernels(), vm::Which::All));
        assert!(names(&["ends"]) == ["vm"] && matches!(test(&["ends"]).kernels(), vm::Which::Ends));
        assert!(Word::parse("vmm").err().unwrap().to_string().contains("dist, vm; a kernel"));
    }

    #[test]
    fn a_failed_tier_says_how_to_run_it_alone() {
        assert_eq!(farewell(Tier::Host), "failed: host; run it alone: cargo xtask test host");
    }
}
