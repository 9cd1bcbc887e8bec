//! One build for all tiers of a run: with one profile and one set of features, nothing is compiled twice.

use std::{cell::OnceCell, path::PathBuf};

use anyhow::Result;

use super::programs::{self, Program};
use crate::{build_ebpf, progress::Steps, setup, variants, workspace};

/// The steps of a build.
const PACKAGES: &str = "packages that the build needs";
const TOOLCHAIN: &str = "compiler and linker for BPF";
const OBJECTS: &str = "eBPF objects";
const VARIANTS: &str = "agents to upgrade to and downgrade from";
const PROGRAMS: &str = "programs and tests";

/// The builds that the tiers of a run need.
#[derive(Debug)]
pub(crate) struct Build {
    /// The eBPF objects, which the agent embeds.
    objects: bool,
    /// The agents to which tests upgrade and from which they downgrade.
    variants: bool,
    programs: OnceCell<Vec<Program>>,
}

impl Build {
    pub(crate) const fn new(objects: bool, variants: bool) -> Self {
        Self { objects, variants, programs: OnceCell::new() }
    }

    /// Returns all test programs of the workspace. The first call builds them, with the binaries that they start.
    ///
    /// # Errors
    /// A tool is missing, or something does not compile.
    pub(crate) fn programs(&self) -> Result<&[Program]> {
        if let Some(programs) = self.programs.get() {
            return Ok(programs);
        }
        let mut steps = Steps::new("test", &[PACKAGES, TOOLCHAIN, OBJECTS, VARIANTS, PROGRAMS]);
        steps.step(PACKAGES, setup::build)?;
        if self.objects {
            steps.step(TOOLCHAIN, setup::toolchain)?;
            steps.step(OBJECTS, build_ebpf::run)?;
        }
        if self.variants {
            steps.step(VARIANTS, variants::build)?;
        }
        // Last: to cargo the variants are the same binary, and the one that is built last stays in the folder.
        let programs = steps.step(PROGRAMS, || programs::build(&["--workspace"]))?;
        Ok(self.programs.get_or_init(|| programs))
    }

    /// Returns the folder of the binaries that [`Build::programs`] has built.
    pub(crate) fn binaries(&self) -> PathBuf {
        workspace::target_dir().join("debug")
    }
}
