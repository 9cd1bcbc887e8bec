//! The test tiers: the requirements and the tests of each.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;

use super::{
    build::Build,
    history::History,
    programs::{self, Ignored, Kind, Program},
    runner::Runner,
};
use crate::{
    command, dist, image,
    report::Report,
    setup, tidy, vm,
    workspace::{self, cargo},
};

/// Tiers run in this order: the sooner a tier ends, the earlier it runs.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(crate) enum Tier {
    /// Formatting.
    Fmt,
    /// Rules of layout (`cargo xtask tidy`).
    Tidy,
    /// Lints, none tolerated.
    Clippy,
    /// Documentation of the code: links that resolve, markup that is closed.
    Doc,
    /// All tests that need only stable Rust.
    Host,
    /// The harness and the simulated Marathon, without root.
    Sim,
    /// Sources other than Marathon, with a real etcd.
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

/// The options of a run, for each of its tiers.
pub(crate) struct Context<'a> {
    pub(crate) filter: Option<&'a str>,
    pub(crate) kernels: &'a vm::Which,
    pub(crate) loaded: bool,
    pub(crate) fail_fast: bool,
    pub(crate) history: &'a History,
    pub(crate) build: &'a Build,
}

/// The folders of the packages whose tests need nothing but Rust.
const HOST: [&str; 4] = ["proxymatic-common", "proxymatic-ebpf", "proxymatic-user", "xtask"];
/// The folder of the package with the simulated Marathon.
const SIM: &str = "marathon-sim";
/// The folder of the package with the harness and the root tiers.
const TESTS: &str = "tests";
/// How many netns tests run at a time: most of them wait most of the time.
const NETNS_AT_A_TIME: usize = 4;

impl Tier {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |it| it.get_name().to_owned())
    }

    /// Whether it runs or reads the eBPF programs.
    pub(crate) const fn needs_objects(self) -> bool {
        match self {
            Self::Fmt | Self::Tidy | Self::Clippy | Self::Doc | Self::Host | Self::Sim | Self::Etcd => false,
            Self::Wire | Self::Netns | Self::Surface | Self::Docker | Self::Dist | Self::Vm => true,
        }
    }

    /// Whether its tests replace the agent by another build.
    pub(crate) const fn needs_variants(self) -> bool {
        matches!(self, Self::Netns)
    }

    /// Runs the tier to its end.
    ///
    /// # Errors
    /// The tier could not start: a tool is missing, or something does not compile.
    pub(crate) fn run(self, context: &Context<'_>) -> Result<Report> {
        match self {
            Self::Fmt => fmt(),
            Self::Tidy => Ok(Report::from_result(tidy::run(false))),
            Self::Clippy => clippy(),
            Self::Doc => doc(),
            Self::Host => {
                let is_host = |it: &Program| HOST.contains(&it.package());
                context.run_tests(self, is_host, Ignored::Skip, cpus(), Vec::new())
            }
            Self::Sim => {
                let is_sim = |it: &Program| it.package() == SIM || it.package() == TESTS && it.kind == Kind::Unit;
                context.run_tests(self, is_sim, Ignored::Skip, cpus(), Vec::new())
            }
            Self::Etcd => {
                setup::etcd()?;
                context.run_tests(self, |it| is_of_user(it, "registrator"), Ignored::Include, cpus(), Vec::new())
            }
            Self::Wire => context.run_tests(self, |it| is_of_user(it, "wire"), Ignored::Include, cpus(), Vec::new()),
            Self::Netns => {
                workspace::need_root("test netns")?;
                setup::tools()?;
                setup::programs()?;
                setup::etcd()?;
                context.run_root_tests(self, NETNS_AT_A_TIME, Vec::new())
            }
            Self::Surface => {
                workspace::need_root("test surface")?;
                setup::tools()?;
                setup::surface()?;
                context.run_root_tests(self, 1, Vec::new())
            }
            Self::Docker => {
                workspace::need_root("test docker")?;
                setup::tools()?;
                setup::docker()?;
                let images = image::prepare()?;
                context.run_root_tests(self, 1, vec![("PROXYMATIC_IMAGE_DIR", images)])
            }
            Self::Dist => {
                workspace::need_root("test dist")?;
                setup::tools()?;
                setup::dist()?;
                dist::check_scripts()?;
                let (made, debian) = (dist::make()?, dist::debian_root()?);
                context.run_root_tests(self, 1, vec![("PROXYMATIC_DIST", made), ("PROXYMATIC_DEBIAN", debian)])
            }
            Self::Vm => {
                let netns = |it: &&Program| it.package() == TESTS && it.target == "netns";
                let tests = context.build.programs()?.iter().find(netns).map(|it| it.path.clone()).unwrap_or_default();
                vm::run(context.kernels, context.filter, &tests, &context.build.binaries())
            }
        }
    }
}

impl Context<'_> {
    /// Runs the tests of the selected programs.
    fn run_tests(
        &self,
        tier: Tier,
        is_chosen: impl Fn(&Program) -> bool,
        ignored: Ignored,
        at_a_time: usize,
        environment: Vec<(&'static str, PathBuf)>,
    ) -> Result<Report> {
        let chosen: Vec<_> = self.build.programs()?.iter().filter(|it| is_chosen(it)).cloned().collect();
        let tests = programs::list(&chosen, self.filter, ignored)?;
        let Self { loaded, fail_fast, history, .. } = *self;
        let tier = tier.name();
        Runner { tier: &tier, at_a_time, loaded, fail_fast, environment, history }.run(tests)
    }

    /// Runs the tests of a root tier, which are in one program with the tier's name.
    fn run_root_tests(
        &self,
        tier: Tier,
        at_a_time: usize,
        mut environment: Vec<(&'static str, PathBuf)>,
    ) -> Result<Report> {
        environment.push(("PROXYMATIC_BIN_DIR", self.build.binaries()));
        let is_of_tier = |it: &Program| it.package() == TESTS && it.target == tier.name();
        self.run_tests(tier, is_of_tier, Ignored::Skip, at_a_time, environment)
    }
}

fn is_of_user(program: &Program, target: &str) -> bool {
    program.package() == "proxymatic-user" && program.target == target
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn fmt() -> Result<Report> {
    command::run(cargo().args(["fmt", "--all", "--check"]))?;
    command::run(cargo().args(["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]))?;
    Ok(Report::default())
}

fn clippy() -> Result<Report> {
    setup::build()?;
    command::run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    // A separate workspace that no other command here compiles. Without its default features, which need minutes of C++
    // compilation.
    let fuzz = ["--manifest-path", "fuzz/Cargo.toml", "--target-dir", "target", "--no-default-features"];
    command::run(cargo().arg("clippy").args(fuzz).args(["--locked", "--", "-D", "warnings"]))?;
    Ok(Report::default())
}

/// Builds the documentation, which nobody publishes: its comments are read in the sources. Most modules are private, and
/// rustdoc checks the links of private items only with `--document-private-items`. A link from a public item to a private
/// one then resolves, so that warning has no meaning here.
fn doc() -> Result<Report> {
    setup::build()?;
    let flags = "-D warnings -A rustdoc::private-intra-doc-links";
    let arguments = ["doc", "--workspace", "--no-deps", "--document-private-items"];
    command::run(cargo().args(arguments).env("RUSTDOCFLAGS", flags))?;
    Ok(Report::default())
}
