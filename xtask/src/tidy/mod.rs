//! `cargo xtask tidy`: the rules of layout that a machine can check. This file reads the files; the rules are pure.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, anyhow};
use ignore::WalkBuilder;

use crate::{command::Failed, workspace};

mod links;
mod rules;
mod words;

/// One violation of a rule.
#[derive(Debug, PartialEq)]
struct Finding {
    line: usize,
    what: String,
}

pub(crate) fn run() -> Result<()> {
    let root = workspace::root();
    let glossary =
        fs::read_to_string(root.join(words::GLOSSARY)).with_context(|| format!("read {}", words::GLOSSARY))?;
    let retired = words::retired(&glossary).map_err(|error| anyhow!(Failed(format!("tidy: {error}"))))?;
    let mut findings = 0;
    for path in files(root)? {
        let Ok(text) = fs::read_to_string(root.join(&path)) else {
            // A binary file, to which no rule applies.
            continue;
        };
        let found = check(&path, &text, &|it| root.join(it).exists());
        for Finding { line, what } in found.into_iter().chain(words::used(&path, &text, &retired)) {
            eprintln!("{path}:{line}: {what}");
            findings += 1;
        }
        if let Some(note) = rules::long(&path, &text) {
            println!("{note}");
        }
    }
    if findings > 0 {
        return Err(anyhow!(Failed(format!("tidy: {findings} broken rules, listed above"))));
    }
    Ok(())
}

fn check(path: &str, text: &str, exists: &dyn Fn(&Path) -> bool) -> Vec<Finding> {
    let mut findings = rules::developer_paths(text);
    if path.ends_with(".rs") {
        findings.extend(rules::module_doc(text));
        findings.extend(rules::pure_rooms(path, text));
        findings.extend(rules::one_way(path, text));
        findings.extend(rules::unsafe_code(path, text));
        findings.extend(rules::test_names(path, text));
        findings.extend(rules::too_long(text));
    }
    if path.ends_with(".md") {
        findings.extend(links::broken(path, text, exists));
    }
    findings
}

/// Returns every file that git tracks or would track, relative to the root.
fn files(root: &Path) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    let walk = WalkBuilder::new(root)
        .hidden(false)
        .parents(false)
        .require_git(false)
        .filter_entry(|it| it.file_name() != ".git")
        .sort_by_file_path(Path::cmp)
        .build();
    for entry in walk {
        let entry = entry.context("tidy cannot list the files of the checkout")?;
        if entry.file_type().is_some_and(|it| it.is_file()) {
            let path = entry.path().strip_prefix(root)?;
            paths.push(path.to_string_lossy().into_owned());
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walk_lists_sources_and_no_build_products() {
        let files = files(workspace::root()).unwrap();
        assert!(files.iter().any(|it| it == "xtask/src/tidy/mod.rs"));
        assert!(files.iter().any(|it| it == ".cargo/config.toml"));
        assert!(!files.iter().any(|it| it.starts_with("target/") || it.starts_with(".git/")));
    }

    #[test]
    fn rules_for_rust_are_not_applied_to_prose() {
        let exists = |_: &Path| true;
        assert_eq!(check("docs/a.md", "no module doc here", &exists), []);
        assert_eq!(check("a.rs", "fn main() {}", &exists).len(), 1);
    }
}
