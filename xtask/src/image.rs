//! `cargo xtask image`: the container images, made of static binaries only.
//!
//! Their content is laid out in `target/image`; the last stages of `Dockerfile` make images of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build_ebpf, command, setup,
    workspace::{self, cargo},
};

/// Arguments of the task.
#[derive(clap::Args)]
pub(crate) struct Image {
    /// Only lay out the content of the images in target/image.
    #[arg(long)]
    prepare: bool,
}

/// One image: its name, its stage in `Dockerfile`, and the programs in it by package.
struct Content {
    name: &'static str,
    stage: Option<&'static str>,
    /// Its folder in `target/image`.
    folder: &'static str,
    programs: &'static [(&'static str, &'static str)],
    /// Empty folders that programs write to.
    rooms: &'static [&'static str],
}

const IMAGES: [Content; 2] = [
    Content {
        name: "proxymatic",
        stage: None,
        folder: "proxymatic",
        programs: &[("proxymatic-user", "proxymatic")],
        rooms: &["run", "var/lib/proxymatic"],
    },
    Content {
        name: "proxymatic-demo",
        stage: Some("demo"),
        folder: "demo",
        programs: &[
            ("proxymatic-tests", "replica"),
            ("marathon-sim", "marathon-sim"),
            ("proxymatic-tests", "marathon-submit"),
        ],
        rooms: &[],
    },
];

/// Certificates of the system, which the agent needs to connect to Marathon by https.
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";
const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];
/// The place, in the first stage of `Dockerfile`, of the folder that is the build context here.
const THERE: &str = "--from=build /src/target/image/";

impl Image {
    pub(crate) fn run(&self) -> Result<()> {
        let folder = prepare()?;
        println!("{}", folder.display());
        if self.prepare {
            return Ok(());
        }
        for image in &IMAGES {
            command::run(&mut build(image, &folder))?;
            let size = command::read(Command::new("docker").args(["image", "inspect", "-f", "{{.Size}}", image.name]))?;
            println!("{}: {} bytes", image.name, size.trim());
        }
        Ok(())
    }
}

/// Builds the programs and lays out the content of the images; returns the folder.
pub(crate) fn prepare() -> Result<PathBuf> {
    setup::image()?;
    build_ebpf::run()?;
    let programs: Vec<_> = IMAGES.iter().flat_map(|it| it.programs).copied().collect();
    let built = workspace::build_static(&programs)?;
    let folder = workspace::root().join("target/image");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    let third_party = third_party()?;
    for image in &IMAGES {
        let root = folder.join(image.folder);
        lay_out(image, &root, &built, &third_party).with_context(|| format!("cannot fill {}", root.display()))?;
        // The same bytes and times make the same layer.
        date(&root, epoch()?)?;
    }
    let dockerfile = fs::read_to_string(workspace::root().join("Dockerfile")).context("cannot read Dockerfile")?;
    fs::write(folder.join("Dockerfile"), last_stages(&dockerfile)?)?;
    Ok(folder)
}

fn lay_out(image: &Content, root: &Path, built: &Path, third_party: &str) -> Result<()> {
    let (bin, doc) = (root.join("usr/bin"), root.join("usr/share/doc").join(image.name));
    for room in [&bin, &doc].into_iter().cloned().chain(image.rooms.iter().map(|room| root.join(room))) {
        fs::create_dir_all(room)?;
    }
    for (_, program) in image.programs {
        fs::copy(built.join(program), bin.join(program)).with_context(|| format!("no {program} was built"))?;
    }
    for licence in LICENCES {
        fs::copy(workspace::root().join(licence), doc.join(licence))?;
    }
    fs::write(doc.join("THIRD-PARTY"), third_party)?;
    let certificates = root.join(CERTIFICATES);
    fs::create_dir_all(certificates.parent().context("no folder")?)?;
    fs::copy(Path::new("/").join(CERTIFICATES), certificates).with_context(|| format!("no /{CERTIFICATES}"))?;
    Ok(())
}

/// Returns the stages that only copy, for a build context that is the folder from which they copy.
fn last_stages(dockerfile: &str) -> Result<String> {
    let Some(at) = dockerfile.find("\nFROM scratch") else {
        bail!("Dockerfile has no stage `FROM scratch`");
    };
    let stages = &dockerfile[at + 1..];
    if stages.matches("--from=").count() != stages.matches(THERE).count() {
        bail!("the last stages of Dockerfile may copy only `{THERE}...`");
    }
    Ok(stages.replace(THERE, ""))
}

fn build(image: &Content, folder: &Path) -> Command {
    let mut build = Command::new("docker");
    build.args(["build", "--quiet", "--tag", image.name]);
    build.args(image.stage.into_iter().flat_map(|stage| ["--target", stage]));
    build.arg(folder);
    build
}

/// The authors of the libraries in the binaries, and the licences.
fn third_party() -> Result<String> {
    let said = command::read(cargo().args(["metadata", "--format-version", "1", "--locked"]))?;
    let said: serde_json::Value = serde_json::from_str(&said)?;
    let mut lines = vec![
        "glibc, LGPL-2.1-or-later, https://www.gnu.org/software/libc/ (linked in; link anew from the sources of proxymatic)"
            .to_owned(),
        "Rust's standard library, MIT OR Apache-2.0, https://www.rust-lang.org/".to_owned(),
        "Mozilla's certificate authorities, MPL-2.0, in /etc/ssl/certs".to_owned(),
    ];
    let crates = said["packages"].as_array().into_iter().flatten().filter(|it| !it["source"].is_null());
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("unknown").to_owned();
    lines.extend(crates.map(|it| {
        let [name, version, licence, home] = ["name", "version", "license", "repository"].map(|key| text(&it[key]));
        format!("{name} {version}, {licence}, {home}")
    }));
    Ok(lines.join("\n") + "\n")
}

/// The time of the last change: SOURCE_DATE_EPOCH, else the time of the commit, else 1970.
fn epoch() -> Result<SystemTime> {
    let said = std::env::var("SOURCE_DATE_EPOCH").ok();
    let committed =
        || command::ask(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(workspace::root()));
    let seconds = said.or_else(committed).unwrap_or_else(|| "0".into());
    let seconds = seconds.trim().parse().with_context(|| format!("SOURCE_DATE_EPOCH {seconds}: no seconds"))?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Gives a folder and everything below it one time.
fn date(path: &Path, time: SystemTime) -> Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            date(&entry?.path(), time)?;
        }
    }
    fs::File::open(path)?.set_modified(time).with_context(|| format!("cannot date {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_dockerfile_stages_are_a_separate_context() {
        let dockerfile = format!(
            "# `FROM scratch`\nFROM debian AS build\nRUN x\n\nFROM scratch AS demo\nCOPY {THERE}demo /\n\nFROM scratch\n"
        );
        assert_eq!(last_stages(&dockerfile).unwrap(), "FROM scratch AS demo\nCOPY demo /\n\nFROM scratch\n");
        assert!(last_stages("FROM debian\n").is_err());
        assert!(last_stages("FROM scratch\nCOPY --from=build /elsewhere /\n").is_err());
    }

    #[test]
    fn every_image_has_its_stage_and_its_folder_in_the_dockerfile() {
        let dockerfile = fs::read_to_string(workspace::root().join("Dockerfile")).unwrap();
        let stages = last_stages(&dockerfile).unwrap();
        for image in &IMAGES {
            let begin = image.stage.map_or("FROM scratch\n".into(), |stage| format!("FROM scratch AS {stage}\n"));
            assert!(stages.contains(&format!("{begin}COPY {} /\n", image.folder)), "{stages}");
        }
    }

    #[test]
    fn image_is_built_from_its_stage() {
        let [agent, demo] = IMAGES.each_ref().map(|image| command::show(&build(image, Path::new("/c"))));
        assert_eq!(agent, "docker build --quiet --tag proxymatic /c");
        assert_eq!(demo, "docker build --quiet --tag proxymatic-demo --target demo /c");
    }
}
