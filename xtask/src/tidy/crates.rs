//! The crates of the checkout, as sources for the module graph.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result};

use super::graph::Source;

/// The files from which the compiler reads a crate, if the crate is not a single file.
const ROOT_FILES: [&str; 2] = ["lib.rs", "main.rs"];
/// Below this folder of a crate each file is a program of its own.
const PROGRAMS: &str = "bin/";

/// Returns the sources of each crate, by the folder of its root, from all files of the checkout.
///
/// A crate is a folder with one of [`ROOT_FILES`]: a library, a program, a test binary, or the code of the fuzz targets.
///
/// # Errors
/// A file cannot be read.
pub(super) fn sources(root: &Path, files: &[String]) -> Result<BTreeMap<String, Vec<Source>>> {
    let roots = roots(files);
    let mut crates: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for file in files {
        let Some((crate_root, module)) = place(file, &roots) else { continue };
        let text = fs::read_to_string(root.join(file)).with_context(|| format!("tidy cannot read {file}"))?;
        crates.entry(crate_root.to_owned()).or_default().push(Source { path: module, file: file.clone(), text });
    }
    Ok(crates)
}

/// Returns the folders that are the root of a crate's modules.
fn roots(files: &[String]) -> BTreeSet<&str> {
    let folders = files.iter().filter_map(|file| file.rsplit_once('/'));
    folders.filter(|(_, name)| ROOT_FILES.contains(name)).map(|(folder, _)| folder).collect()
}

/// Returns the crate of a file, and the path of its module; `None` for unit tests and for files that are not modules.
fn place<'a>(file: &str, roots: &BTreeSet<&'a str>) -> Option<(&'a str, Vec<String>)> {
    let contains = |root: &&&str| file.strip_prefix(**root).is_some_and(|rest| rest.starts_with('/'));
    let root = roots.iter().filter(contains).max_by_key(|root| root.len())?;
    let inside = file[root.len() + 1..].strip_suffix(".rs")?;
    if inside.starts_with(PROGRAMS) {
        return None;
    }
    let mut path: Vec<_> = inside.split('/').map(str::to_owned).collect();
    if path.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        path.pop();
    }
    let is_tests = path.iter().any(|part| part == "tests");
    (!is_tests).then_some((*root, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_modules_of_their_crates() {
        let files = [
            "proxymatic-user/src/lib.rs",
            "proxymatic-ebpf/src/main.rs",
            "tests/src/lib.rs",
            "tests/src/bin/demo/main.rs",
            "tests/netns/main.rs",
            "fuzz/src/lib.rs",
        ]
        .map(str::to_owned);
        let roots = roots(&files);
        let module = |file: &str| place(file, &roots).map(|(root, path)| (root, path.join("::")));
        let found = |root, path: &str| Some((root, path.to_owned()));
        assert_eq!(module("proxymatic-user/src/plan/mod.rs"), found("proxymatic-user/src", "plan"));
        assert_eq!(module("proxymatic-user/src/plan/op.rs"), found("proxymatic-user/src", "plan::op"));
        assert_eq!(module("proxymatic-ebpf/src/main.rs"), found("proxymatic-ebpf/src", ""));
        assert_eq!(module("tests/netns/remote/icmp.rs"), found("tests/netns", "remote::icmp"));
        assert_eq!(module("tests/src/lab/host.rs"), found("tests/src", "lab::host"));
        assert_eq!(module("tests/src/bin/demo/acts.rs"), found("tests/src/bin/demo", "acts"));
        assert_eq!(module("fuzz/src/rows.rs"), found("fuzz/src", "rows"));
        assert_eq!(module("tests/src/bin/echo.rs"), None, "a program of one file");
        assert_eq!(module("proxymatic-user/src/plan/op/tests.rs"), None, "unit tests");
        assert_eq!(module("fuzz/fuzz_targets/plan.rs"), None, "a program of one file");
        assert_eq!(module("docs/labels.md"), None);
    }
}
