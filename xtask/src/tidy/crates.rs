//! The crates of the workspace, as sources for the module graph.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};

use super::graph::Source;

/// The folders that are the root of a crate's modules: the crates of the product.
const ROOTS: [&str; 3] = ["proxymatic-common/src", "proxymatic-ebpf/src", "proxymatic-user/src"];
/// Below this folder of a crate each file, or folder, is a program of its own.
const PROGRAMS: &str = "bin/";

/// Returns the sources of each crate, by the folder of its root, from all files of the checkout.
///
/// # Errors
/// A file cannot be read.
pub(super) fn sources(root: &Path, files: &[String]) -> Result<BTreeMap<&'static str, Vec<Source>>> {
    let mut crates: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for file in files {
        let Some((crate_root, module)) = place(file) else { continue };
        let text = fs::read_to_string(root.join(file)).with_context(|| format!("tidy cannot read {file}"))?;
        crates.entry(crate_root).or_default().push(Source { path: module, file: file.clone(), text });
    }
    Ok(crates)
}

/// Returns the crate of a file, and the path of its module; `None` for tests and for files that are not modules.
fn place(file: &str) -> Option<(&'static str, Vec<String>)> {
    let root = ROOTS.into_iter().find(|root| file.strip_prefix(root).is_some_and(|rest| rest.starts_with('/')))?;
    let inside = file[root.len() + 1..].strip_suffix(".rs")?;
    if inside.starts_with(PROGRAMS) {
        return None;
    }
    let mut path: Vec<_> = inside.split('/').map(str::to_owned).collect();
    if path.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        path.pop();
    }
    let is_tests = path.iter().any(|part| part == "tests");
    (!is_tests).then_some((root, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_modules_of_their_crates() {
        let module = |file: &str| place(file).map(|(root, path)| (root, path.join("::")));
        assert_eq!(module("proxymatic-user/src/plan/mod.rs"), Some(("proxymatic-user/src", "plan".into())));
        assert_eq!(module("proxymatic-user/src/plan/op.rs"), Some(("proxymatic-user/src", "plan::op".into())));
        assert_eq!(module("proxymatic-ebpf/src/main.rs"), Some(("proxymatic-ebpf/src", String::new())));
        assert_eq!(module("proxymatic-user/src/plan/op/tests.rs"), None);
        assert_eq!(module("proxymatic-user/src/bin/mortal.rs"), None);
        assert_eq!(module("xtask/src/main.rs"), None);
        assert_eq!(module("tests/netns/main.rs"), None);
    }
}
