//! QEMU and busybox, unpacked into the cache and not installed.
//!
//! An emulator need not be installed on the machine; and if parts of QEMU came from elsewhere, apt would remove them
//! for it.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Result, ensure};

use super::apt;

const PACKAGES: [&str; 2] = ["qemu-system-x86", "busybox-static"];
/// The folders of QEMU's libraries, and its other files.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
const DATA: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];
const MODULES: &str = "usr/lib/x86_64-linux-gnu/qemu";

/// The paths of the programs, below a root.
const QEMU: &str = "usr/bin/qemu-system-x86_64";
const BUSYBOX: &str = "bin/busybox";

/// The places of the programs.
pub(super) struct Tools {
    home: PathBuf,
}

impl Tools {
    /// Unpacks them if needed. A program that is installed on this machine is used from there.
    ///
    /// # Errors
    /// apt cannot fetch them.
    pub(super) fn provide(cache: &Path) -> Result<Self> {
        let tools = Self { home: cache.join("tools") };
        // One by one: if QEMU is installed and busybox is not, no second QEMU is needed.
        let wanted: Vec<_> = [QEMU, BUSYBOX].into_iter().zip(PACKAGES).filter(|it| !is_installed(*it)).collect();
        if wanted.iter().any(|(program, _)| !tools.home.join(program).exists()) {
            if tools.home.exists() {
                fs::remove_dir_all(&tools.home)?;
            }
            let packages: Vec<_> = wanted.iter().map(|(_, package)| *package).collect();
            apt::unpack_with_needs(&packages, &tools.home)?;
            for (program, package) in wanted {
                ensure!(
                    tools.home.join(program).exists(),
                    "Debian's {package} has no {program}: install one that has it"
                );
            }
        }
        Ok(tools)
    }

    /// Returns the path of a program, in the cache or installed.
    fn program(&self, program: &str) -> PathBuf {
        let unpacked = self.home.join(program);
        if unpacked.exists() { unpacked } else { Path::new("/").join(program) }
    }

    /// Returns the command of QEMU, with its libraries and its data, under timeout(1), which ends it even if this
    /// process ends first. In the foreground: an interrupt of this process interrupts both.
    pub(super) fn qemu(&self, limit: Duration) -> Command {
        let mut qemu = Command::new("timeout");
        qemu.args(["--foreground", "--kill-after=5", &limit.as_secs().to_string()]);
        let program = self.program(QEMU);
        qemu.arg(&program);
        if program.starts_with(&self.home) {
            qemu.env("LD_LIBRARY_PATH", self.libraries());
            // Installed dependencies were not fetched.
            for data in DATA {
                qemu.arg("-L").arg(self.home.join(data)).arg("-L").arg(Path::new("/").join(data));
            }
            if !self.home.join(MODULES).exists() {
                qemu.env("QEMU_MODULE_DIR", Path::new("/").join(MODULES));
            }
        }
        qemu
    }

    /// The program busybox, which needs no libraries.
    pub(super) fn busybox_path(&self) -> PathBuf {
        self.program(BUSYBOX)
    }

    /// Returns the command of one of its programs.
    pub(super) fn busybox(&self, applet: &str) -> Command {
        let mut busybox = Command::new(self.busybox_path());
        busybox.arg(applet);
        busybox
    }

    fn libraries(&self) -> OsString {
        // Without empty parts, which would mean the current folder.
        env::join_paths(LIBRARIES.map(|it| self.home.join(it))).unwrap_or_default()
    }
}

/// Whether a program of this package exists. By the package's name: another busybox would need libraries.
fn is_installed((program, package): (&str, &str)) -> bool {
    Path::new("/").join(program).exists() && apt::is_installed(package)
}
