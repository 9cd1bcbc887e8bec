//! One virtual machine: its start, its end, and its timeout.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{kernels::Kernel, tools::Tools};
use crate::command;

/// The accelerator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// KVM.
    Kvm,
    /// Emulation (TCG), which takes ten times as long.
    Tcg,
}

/// Timeout of a machine that does nothing.
const TRIAL: Duration = Duration::from_secs(15);
const MEMORY: &str = "1536";
const CPUS: &str = "2";

impl Accelerator {
    /// KVM if it boots a kernel: on a virtual machine, a /dev/kvm alone proves little.
    pub(super) fn find(kernel: &Kernel, tools: &Tools, folder: &Path) -> Self {
        let may = File::options().read(true).write(true).open("/dev/kvm").is_ok();
        let tried = || -> Result<bool> {
            // The machine gets no files, so it reports that and ends.
            let console = folder.join("trial");
            let mut machine = Self::Kvm.machine(kernel, tools, &folder.join("initramfs"), TRIAL);
            command::run(logged(&mut machine, &console)?)?;
            Ok(fs::read_to_string(console)?.contains("vm: no files of the machine"))
        };
        if may && tried().unwrap_or(false) { Self::Kvm } else { Self::Tcg }
    }

    /// The name that QEMU uses.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// Runs the machine with two folders: all files of this machine, read-only, and the folder of its results.
    ///
    /// # Errors
    /// The machine did not end within its timeout.
    pub(super) fn run(self, kernel: &Kernel, tools: &Tools, folder: &Path, limit: Duration) -> Result<()> {
        let mut machine = self.machine(kernel, tools, &folder.join("initramfs"), limit);
        share(&mut machine, "machine", Path::new("/"), ",readonly=on");
        share(&mut machine, "out", &folder.join("out"), "");
        let console = folder.join("console");
        let status = logged(&mut machine, &console)?.status().context("cannot start timeout(1)")?;
        anyhow::ensure!(
            status.success(),
            "the machine was not done after {} s or failed ({status}); its console is {}",
            limit.as_secs(),
            console.display()
        );
        Ok(())
    }

    fn machine(self, kernel: &Kernel, tools: &Tools, initramfs: &Path, limit: Duration) -> Command {
        let (accelerator, processor) = match self {
            Self::Kvm => ("kvm", "host"),
            Self::Tcg => ("tcg,thread=multi", "max"),
        };
        let mut machine = tools.qemu(limit);
        machine
            .args(["-machine", "q35", "-accel", accelerator, "-cpu", processor, "-smp", CPUS, "-m", MEMORY])
            .args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"])
            .arg("-kernel")
            .arg(kernel.image())
            .arg("-initrd")
            .arg(initramfs)
            // A panic is a reboot, which ends the machine.
            .args(["-append", "console=ttyS0 panic=-1 quiet mitigations=off"]);
        machine
    }
}

/// Whether a kernel panicked at a breakpoint that it does not know. The kernel sets one while it patches code that
/// another CPU may run, and knows all that exist; QEMU's translation of that code can outlive the breakpoint. No
/// program here can cause that.
pub(super) fn is_half_patched(console: &str) -> bool {
    console.contains("int3: 0000 [#1]")
}

fn share(machine: &mut Command, name: &str, folder: &Path, more: &str) {
    let path = folder.display();
    machine
        .arg("-fsdev")
        .arg(format!("local,id={name},path={path},security_model=none,multidevs=remap{more}"))
        .arg("-device")
        .arg(format!("virtio-9p-pci,fsdev={name},mount_tag={name}"));
}

fn logged<'a>(machine: &'a mut Command, console: &Path) -> Result<&'a mut Command> {
    let file = File::create(console).with_context(|| format!("cannot make {}", console.display()))?;
    let twin = file.try_clone()?;
    Ok(machine.stdin(Stdio::null()).stdout(file).stderr(twin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_breakpoint_differs_from_other_kernel_panics() {
        assert!(is_half_patched("[    1.150973] Oops: int3: 0000 [#1] SMP NOPTI"));
        assert!(is_half_patched("[    1.150973] int3: 0000 [#1] SMP NOPTI"));
        assert!(!is_half_patched(
            "[    1.150973] Oops: general protection fault: 0000 [#1] SMP\n[    1.2] int3: 0000 [#2]"
        ));
    }
}
