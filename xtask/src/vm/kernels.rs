//! The kernels, and one of them unpacked: its image, and the modules that the tests may need.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::{apt::Apt, tools::Tools};
use crate::command;

/// The kernels that run by default, oldest first. [`NEWEST`] is the newest one in the suites.
pub(super) const KERNELS: [&str; 4] = ["5.10", "6.1", "6.12", NEWEST];
pub(super) const NEWEST: &str = "newest";

/// The kept modules, by their prefix below the folder of modules. All others are drivers and file systems.
const MODULES: [&str; 10] = [
    "kernel/net",
    "kernel/lib",
    "kernel/crypto",
    "kernel/arch",
    "kernel/fs/9p",
    "kernel/fs/fscache",
    "kernel/fs/netfs",
    "kernel/fs/overlayfs",
    "kernel/drivers/virtio",
    "kernel/drivers/net/veth.ko",
];

/// One of Debian's kernels, unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kernel {
    /// Its release, as `uname -r` prints it.
    pub(super) release: String,
    /// Version of the package.
    pub(super) version: String,
    /// Whether it is the newest known kernel.
    pub(super) newest: bool,
    home: PathBuf,
}

impl Kernel {
    /// Finds the newest kernel of a series ([`NEWEST`] for the newest of all), and unpacks it if needed.
    ///
    /// # Errors
    /// There is no kernel of that series, or it cannot be fetched or unpacked.
    pub(super) fn provide(series: &str, apt: &Apt, tools: &Tools, cache: &Path) -> Result<Self> {
        let releases: Vec<_> = apt.names("linux-image-")?.iter().filter_map(|it| release(it)).collect();
        let newest = newest_of(&releases, NEWEST).context("the lists of packages have no kernel at all")?;
        let release = newest_of(&releases, series).ok_or_else(|| {
            anyhow!("Debian has no kernel {series}; name a series such as {}, or {NEWEST} ({newest})", KERNELS[1])
        })?;
        let (version, needs) = apt.show(&image(&release))?;
        let home = cache.join(&release);
        let kernel = Self { newest: release == newest, version, home, release };
        if !kernel.home.exists() {
            kernel.unpack(apt, &needs, tools)?;
        }
        Ok(kernel)
    }

    /// Its series among [`KERNELS`], if any.
    pub(super) fn series(&self) -> Option<&'static str> {
        let is = |series: &&str| numbers(&self.release).starts_with(&numbers(series));
        if self.newest { Some(NEWEST) } else { KERNELS.into_iter().filter(|it| *it != NEWEST).find(is) }
    }

    /// The image that boots.
    pub(super) fn image(&self) -> PathBuf {
        self.home.join("vmlinuz")
    }

    /// The folder of its modules, with the tables that modprobe reads.
    pub(super) fn modules(&self) -> PathBuf {
        self.home.join("lib/modules").join(&self.release)
    }

    fn unpack(&self, apt: &Apt, needs: &[String], tools: &Tools) -> Result<()> {
        // From 7.x on, image and modules are packages of their own, and the package with the old name is empty.
        let parts = needs.iter().filter(|it| it.starts_with("linux-binary-") || it.starts_with("linux-modules-"));
        let packages: Vec<_> = [image(&self.release)].into_iter().chain(parts.cloned()).collect();
        let whole = self.home.with_extension("whole");
        let part = self.home.with_extension("part");
        for folder in [&whole, &part] {
            if folder.exists() {
                fs::remove_dir_all(folder)?;
            }
        }
        apt.unpack(&packages, &whole)?;
        let modules = ["lib/modules", "usr/lib/modules"].map(|it| whole.join(it).join(&self.release));
        let modules = modules.into_iter().find(|it| it.exists());
        let modules = modules.with_context(|| format!("{} has no modules", packages.join(" ")))?;
        let image = [whole.join(format!("boot/vmlinuz-{}", self.release)), modules.join("vmlinuz")];
        let image = image.into_iter().find(|it| it.exists());
        let image = image.with_context(|| format!("{} has no vmlinuz", packages.join(" ")))?;

        let kept = part.join("lib/modules").join(&self.release);
        fs::create_dir_all(&kept)?;
        keep(&modules, &kept)?;
        fs::rename(image, part.join("vmlinuz"))?;
        decompress(&kept, tools)?;
        command::run(tools.busybox("depmod").arg("-b").arg(&part).arg(&self.release))?;
        fs::rename(&part, &self.home)?;
        fs::remove_dir_all(whole)?;
        Ok(())
    }
}

/// Moves the modules of [`MODULES`], and the lists that depmod reads.
fn keep(modules: &Path, kept: &Path) -> Result<()> {
    let wanted = |path: &str| MODULES.iter().any(|it| path.starts_with(it)) || path.starts_with("modules.");
    for file in files(modules)? {
        let path = file.strip_prefix(modules)?;
        if !wanted(&path.to_string_lossy()) {
            continue;
        }
        let to = kept.join(path);
        fs::create_dir_all(to.parent().unwrap_or(kept))?;
        fs::rename(&file, to)?;
    }
    Ok(())
}

/// busybox loads only uncompressed modules.
fn decompress(modules: &Path, tools: &Tools) -> Result<()> {
    let files = files(modules)?;
    let with =
        |ending: &str| files.iter().filter(|it| it.extension().is_some_and(|it| it == ending)).collect::<Vec<_>>();
    for some in with("xz").chunks(500) {
        command::run(tools.busybox("unxz").args(some))?;
    }
    for some in with("zst").chunks(500) {
        command::run(Command::new("zstd").args(["--decompress", "--rm", "--quiet"]).args(some))?;
    }
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { found.extend(files(&entry.path())?) } else { found.push(entry.path()) }
    }
    Ok(found)
}

fn image(release: &str) -> String {
    format!("linux-image-{release}")
}

/// Returns the release of a generic kernel; `None` for all other packages with this prefix.
fn release(package: &str) -> Option<String> {
    let release = package.strip_prefix("linux-image-")?;
    let version = release.strip_suffix("-amd64")?;
    // With letters it is of another flavour (cloud, rt), or built for an older release (deb11). One number is no
    // version.
    let (upstream, _) = version.split_once(['-', '+'])?;
    let plain = upstream.split('.').all(|it| it.parse::<u32>().is_ok()) && upstream.split('.').count() == 3;
    (plain && !version.contains("-0.deb") && !version.contains("cloud") && !version.contains("rt"))
        .then(|| release.to_owned())
}

/// Returns the newest kernel of a series, compared by whole numbers: 6.1 is not 6.12.
fn newest_of(releases: &[String], series: &str) -> Option<String> {
    let belongs = |it: &&String| series == NEWEST || numbers(it).starts_with(&numbers(series));
    releases.iter().filter(belongs).max_by_key(|it| numbers(it)).cloned()
}

/// 6.1.0-56-amd64 is 6, 1, 0, 56; the part after a plus is no version of the kernel.
fn numbers(release: &str) -> Vec<u32> {
    let release = release.split('+').next().unwrap_or_default().trim_end_matches("-amd64");
    release.split(['.', '-']).filter_map(|it| it.parse().ok()).collect()
}

/// Whether an argument names a kernel, as opposed to a tier.
pub(crate) fn is_named(word: &str) -> Result<bool> {
    if word == NEWEST {
        return Ok(true);
    }
    if !word.starts_with(|it: char| it.is_ascii_digit()) {
        return Ok(false);
    }
    if word.split('.').count() < 2 || !word.split('.').all(|it| it.parse::<u32>().is_ok()) {
        bail!("a kernel is named by its series, such as {}", KERNELS[1]);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGES: [&str; 12] = [
        "linux-image-amd64",
        "linux-image-5.10.0-9-amd64",
        "linux-image-5.10.0-46-amd64",
        "linux-image-5.10.0-46-cloud-amd64",
        "linux-image-5.10.0-47-rt-amd64",
        "linux-image-6.1-amd64",
        "linux-image-6.1.0-0.deb11.52-amd64",
        "linux-image-6.1.0-56-amd64",
        "linux-image-6.12.117+deb12-amd64",
        "linux-image-7.3.4+deb13-amd64",
        "linux-image-7.3.4+deb13-cloud-amd64",
        "linux-image-7.3.10+deb13-amd64-dbg",
    ];

    fn newest(series: &str) -> Option<String> {
        let releases: Vec<_> = PACKAGES.iter().filter_map(|it| release(it)).collect();
        newest_of(&releases, series)
    }

    #[test]
    fn series_selects_its_newest_generic_kernel() {
        assert_eq!(newest("5.10").as_deref(), Some("5.10.0-46-amd64"));
        assert_eq!(newest("6.1").as_deref(), Some("6.1.0-56-amd64"));
        assert_eq!(newest("6.12").as_deref(), Some("6.12.117+deb12-amd64"));
        assert_eq!(newest(NEWEST).as_deref(), Some("7.3.4+deb13-amd64"));
        assert_eq!(newest("6.2"), None);
    }

    #[test]
    fn kernel_argument_differs_from_a_tier() {
        assert!(is_named("6.1").unwrap() && is_named(NEWEST).unwrap());
        assert!(!is_named("vm").unwrap());
        assert!(is_named("6").unwrap_err().to_string().contains("such as 6.1"));
        assert!(is_named("6.x").is_err());
    }
}
