//! QEMU and busybox, unpacked into the cache and not installed.
//!
//! An emulator is no business of the machine; and where parts of QEMU have been installed from elsewhere, apt would
//! remove them for it.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Result;

use super::apt;

const PACKAGES: [&str; 2] = ["qemu-system-x86", "busybox-static"];
/// Where its packages keep libraries, and what else QEMU reads.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
const DATA: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// Where they are.
pub(super) struct Tools {
    home: PathBuf,
}

impl Tools {
    /// Unpacks them where they are not yet.
    ///
    /// # Errors
    /// apt cannot fetch them.
    pub(super) fn provide(cache: &Path) -> Result<Self> {
        let tools = Self { home: cache.join("tools") };
        if !tools.home.exists() {
            apt::unpack_with_needs(&PACKAGES, &tools.home)?;
        }
        Ok(tools)
    }

    /// QEMU, with its libraries and its data, under timeout(1), which ends it whatever becomes of this process. In the
    /// foreground: who interrupts this process interrupts both.
    pub(super) fn qemu(&self, limit: Duration) -> Command {
        let mut qemu = Command::new("timeout");
        qemu.args(["--foreground", "--kill-after=5", &limit.as_secs().to_string()]);
        qemu.arg(self.home.join("usr/bin/qemu-system-x86_64")).env("LD_LIBRARY_PATH", self.libraries());
        for data in DATA {
            qemu.arg("-L").arg(self.home.join(data));
        }
        qemu
    }

    /// The program busybox, which needs no libraries.
    pub(super) fn busybox_path(&self) -> PathBuf {
        self.home.join("bin/busybox")
    }

    /// One of the programs in it.
    pub(super) fn busybox(&self, applet: &str) -> Command {
        let mut busybox = Command::new(self.busybox_path());
        busybox.arg(applet);
        busybox
    }

    fn libraries(&self) -> OsString {
        // Not empty parts: those would be the current folder.
        env::join_paths(LIBRARIES.map(|it| self.home.join(it))).unwrap_or_default()
    }
}
