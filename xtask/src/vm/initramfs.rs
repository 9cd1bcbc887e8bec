//! The initramfs of a virtual machine: busybox, two scripts, and the modules that the root file system needs.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use cpio::newc::{self, ModeFileType};

use super::{kernels::Kernel, tools::Tools};

/// Mounts the machine's files (by 9p), with a writable layer above.
const MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];
/// The script that becomes process 1.
const INIT: &str = include_str!("init.sh");
/// The script that it executes in turn.
const GUEST: &str = include_str!("guest.sh");

/// Writes it for one kernel.
///
/// # Errors
/// A module is missing, or the file cannot be written.
pub(super) fn write(file: &Path, kernel: &Kernel, tools: &Tools) -> Result<()> {
    let mut archive = Archive { out: BufWriter::new(File::create(file)?), made: BTreeSet::new() };
    archive.file("init", INIT.as_bytes(), 0o755)?;
    archive.file("guest.sh", GUEST.as_bytes(), 0o755)?;
    archive.file("bin/busybox", &read(&tools.busybox_path())?, 0o755)?;
    // Mount points that must exist before any can be made.
    for folder in ["proc", "sys", "dev", "machine", "layer", "new"] {
        archive.folder(Path::new(folder))?;
    }
    let dependencies = fs::read_to_string(kernel.modules().join("modules.dep"))?;
    let order = in_order(&dependencies)?;
    for path in &order {
        archive.file(path, &read(&kernel.modules().join(path))?, 0o644)?;
    }
    archive.file("order", order.join("\n").as_bytes(), 0o644)?;
    newc::trailer(archive.out)?.flush()?;
    Ok(())
}

/// Returns the files of [`MODULES`] and of their dependencies, each after its dependencies. Modules that are built into
/// the kernel are not listed.
fn in_order(dependencies: &str) -> Result<Vec<String>> {
    let mut order: Vec<String> = Vec::new();
    for module in MODULES {
        let is_it = |line: &&str| line.split(':').next().is_some_and(|it| it.ends_with(&format!("/{module}.ko")));
        let Some(line) = dependencies.lines().find(is_it) else { continue };
        let (file, needs) = line.split_once(':').context("modules.dep is not as it should be")?;
        // Written last to first.
        for path in needs.split_whitespace().rev().chain([file]) {
            if !order.iter().any(|it| it == path) {
                order.push(path.to_owned());
            }
        }
    }
    Ok(order)
}

struct Archive<W: Write> {
    out: W,
    made: BTreeSet<PathBuf>,
}

impl<W: Write> Archive<W> {
    fn file(&mut self, path: &str, content: &[u8], mode: u32) -> Result<()> {
        let path = Path::new(path);
        if let Some(parent) = path.parent() {
            self.folder(parent)?;
        }
        self.entry(path, content, mode, ModeFileType::Regular)
    }

    fn folder(&mut self, path: &Path) -> Result<()> {
        let above: Vec<_> = path.ancestors().filter(|it| *it != Path::new("")).map(Path::to_owned).collect();
        for folder in above.into_iter().rev() {
            if self.made.insert(folder.clone()) {
                self.entry(&folder, &[], 0o755, ModeFileType::Directory)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, content: &[u8], mode: u32, kind: ModeFileType) -> Result<()> {
        let entry = newc::Builder::new(&path.to_string_lossy()).mode(mode).set_mode_file_type(kind);
        let mut entry = entry.write(&mut self.out, u32::try_from(content.len())?);
        io::copy(&mut &content[..], &mut entry)?;
        entry.finish()?;
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_once_and_after_their_dependencies() {
        let dependencies = "kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/netfs/netfs.ko\n\
                            kernel/net/9p/9pnet_virtio.ko: kernel/net/9p/9pnet.ko kernel/drivers/virtio/virtio.ko\n\
                            kernel/fs/overlayfs/overlay.ko:\n\
                            kernel/net/x9p.ko:\n";
        assert_eq!(
            in_order(dependencies).unwrap(),
            [
                "kernel/drivers/virtio/virtio.ko",
                "kernel/net/9p/9pnet.ko",
                "kernel/net/9p/9pnet_virtio.ko",
                "kernel/fs/netfs/netfs.ko",
                "kernel/fs/9p/9p.ko",
                "kernel/fs/overlayfs/overlay.ko",
            ]
        );
    }
}
