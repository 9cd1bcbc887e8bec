//! `cargo xtask test vm [KERNEL...]`: tests that depend on the kernel, on Debian's kernels, under QEMU.
//!
//! A machine sees all files of this machine, read-only below a writable layer, so that programs and libraries are the
//! same; only the kernel differs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};

use crate::{command, report::Report, workspace};

mod apt;
mod boot;
mod chosen;
mod documents;
mod initramfs;
mod kernels;
mod outcome;
mod record;
mod report;
mod run;
mod tools;

use apt::Apt;
use boot::Accelerator;
use chosen::Choice;
pub(crate) use kernels::is_named;
use kernels::{KERNELS, Kernel, NEWEST};
use run::Run;
use tools::Tools;

/// Timeouts of one test, and of one machine. They only guard against one that never ends.
const TEST: Duration = Duration::from_secs(300);
const MACHINE: Duration = Duration::from_secs(30 * 60);
/// How often a machine is started again after a panic that the emulation causes.
const TRIES: u32 = 3;
/// Factor of the tests' timeouts, compared with a real machine.
const PATIENCE: u32 = 6;

/// The requested kernels.
pub(crate) enum Which {
    /// All kernels of docs/kernels.md.
    All,
    /// These series.
    Named(Vec<String>),
    /// The oldest and the newest, with few tests: whether hooks load, attach and forward.
    Ends,
}

/// Programs that run in every machine.
struct Plan {
    binary: PathBuf,
    programs: PathBuf,
    tests: Vec<String>,
}

/// Runs tests of a program on each kernel, also after a kernel on which a test failed. `programs` is the folder of the
/// binaries that tests start. A skipped test on the newest kernel counts as failed, since that kernel has all features.
///
/// # Errors
/// No kernel or no QEMU can be fetched.
pub(crate) fn run(which: &Which, filter: Option<&str>, tests: &Path, programs: &Path) -> Result<Report> {
    let plan = Plan::make(which.choice(), filter, tests, programs)?;
    if plan.tests.is_empty() {
        // As in any other tier, a filter without a test is no error.
        println!("no test that runs in virtual machines has {:?} in its name", filter.unwrap_or_default());
        return Ok(Report::default());
    }
    let cache = workspace::cache()?.join("vm");
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let apt = Apt::open(&cache.join("apt"))?;
    let tools = Tools::provide(&cache)?;
    let kernels = which.kernels(|series| Kernel::provide(series, &apt, &tools, &cache))?;
    let keeps = which.choice() == Choice::All && filter.is_none();
    let (mut accelerator, mut report) = (None, Report::default());
    for kernel in kernels {
        match run_one(kernel, &mut accelerator, &tools, &plan) {
            Ok(run) => {
                report.tests.extend(run.report());
                // Written after each kernel, since the next one may not boot.
                if keeps {
                    documents::keep(run)?;
                }
            }
            Err(error) => report.errors.push(format!("{error:#}")),
        }
    }
    Ok(report)
}

impl Which {
    fn choice(&self) -> Choice {
        match self {
            Self::All | Self::Named(_) => Choice::All,
            Self::Ends => Choice::Few,
        }
    }

    fn kernels(&self, provide: impl Fn(&str) -> Result<Kernel>) -> Result<Vec<Kernel>> {
        let series: Vec<&str> = match self {
            Self::All => KERNELS.to_vec(),
            Self::Ends => vec![KERNELS[0], NEWEST],
            Self::Named(series) => series.iter().map(String::as_str).collect(),
        };
        let mut kernels = Vec::new();
        for series in series {
            let kernel = provide(series)?;
            if !kernels.contains(&kernel) {
                kernels.push(kernel);
            }
        }
        Ok(kernels)
    }
}

impl Plan {
    fn make(choice: Choice, filter: Option<&str>, binary: &Path, programs: &Path) -> Result<Self> {
        let list = command::read(Command::new(binary).args(["--list", "--format", "terse"]))?;
        let all: Vec<_> = list.lines().filter_map(|line| line.strip_suffix(": test")).collect();
        let chosen = chosen::of(&all, choice)
            .map_err(|stale| anyhow!("no test is of {}: mend the table in xtask/src/vm/chosen.rs", stale.join(", ")))?;
        let matches = |it: &&str| filter.is_none_or(|filter| it.contains(filter));
        let tests: Vec<_> = chosen.into_iter().filter(matches).map(str::to_owned).collect();
        Ok(Self { binary: binary.to_path_buf(), programs: programs.to_path_buf(), tests })
    }

    /// Writes the tasks of the machine, for xtask/src/vm/guest.sh.
    fn write(&self, out: &Path, kernel: &Kernel) -> Result<()> {
        let value = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', "'\\''"));
        let lines = [
            format!("modules={}", value(&kernel.modules())),
            format!("binary={}", value(&self.binary)),
            format!("limit={}", TEST.as_secs()),
            "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root".into(),
            format!("export PROXYMATIC_BIN_DIR={}", value(&self.programs)),
            format!("export PROXYMATIC_TEST_PATIENCE={PATIENCE}"),
        ];
        fs::write(out.join("plan"), lines.join("\n") + "\n")?;
        fs::write(out.join("tests"), self.tests.join("\n") + "\n")?;
        Ok(())
    }
}

fn run_one(kernel: Kernel, accelerator: &mut Option<Accelerator>, tools: &Tools, plan: &Plan) -> Result<Run> {
    let folder = workspace::target_dir().join("vm").join(&kernel.release);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let out = folder.join("out");
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    initramfs::write(&folder.join("initramfs"), &kernel, tools)?;
    let accelerator = *accelerator.get_or_insert_with(|| Accelerator::find(&kernel, tools, &folder));
    println!("{}: {} tests, by {}", kernel.release, plan.tests.len(), accelerator.name());
    let console = || fs::read_to_string(folder.join("console")).unwrap_or_default();
    let mut tries = 1;
    let (ended, took) = loop {
        plan.write(&out, &kernel)?;
        let begun = Instant::now();
        let ended = accelerator.run(&kernel, tools, &folder, MACHINE);
        // Only before the first test, so that no test's output is lost.
        let again =
            accelerator == Accelerator::Tcg && !out.join("results").exists() && boot::is_half_patched(&console());
        if !again || tries == TRIES {
            break (ended, begun.elapsed());
        }
        tries += 1;
        println!(
            "{}: the translator ran an instruction that was being patched; again, {tries} of {TRIES}",
            kernel.release
        );
        fs::remove_dir_all(&out)?;
        fs::create_dir_all(&out)?;
    };
    let tests: Vec<_> = plan.tests.iter().map(String::as_str).collect();
    let outcome = outcome::read(&out, &tests).with_context(|| {
        format!(
            "{} did not come up: {}\n{}",
            kernel.release,
            ended.as_ref().err().map_or("".into(), |it| it.to_string()),
            console()
        )
    })?;
    let run = Run { kernel, accelerator, outcome, took };
    run.tell(&out);
    if let Err(error) = ended {
        eprintln!("{}: {error}", run.kernel.release);
    }
    Ok(run)
}
