//! `cargo xtask tidy`: the rules of layout that a machine can check. This file reads the files; the rules are pure.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result, anyhow};
use ignore::WalkBuilder;

use self::{finding::Finding, graph::Graph, layouts::Layouts, versions::Versions};
use crate::{command::Failed, workspace};

mod architecture;
mod crates;
mod finding;
mod graph;
mod layouts;
mod links;
mod proofs;
mod rules;
mod versions;
mod words;

/// Checks every rule, and prints each broken one. With `fix` it rewrites what is generated.
pub(crate) fn run(fix: bool) -> Result<()> {
    let root = workspace::root();
    let glossary =
        fs::read_to_string(root.join(words::GLOSSARY)).with_context(|| format!("read {}", words::GLOSSARY))?;
    let retired = words::retired(&glossary).map_err(|error| anyhow!(Failed(format!("tidy: {error}"))))?;
    let layouts = read_layouts(root)?;
    let abi = layouts.version.as_deref().context("proxymatic-common has no ABI_VERSION")?;
    let versions = Versions { package: env!("CARGO_PKG_VERSION"), abi };
    let tests = read_test_names(root)?;
    let mut findings = 0;
    for path in files(root)? {
        let Ok(text) = fs::read_to_string(root.join(&path)) else {
            // A binary file, to which no rule applies.
            continue;
        };
        let mut found = check(&path, &text, &|it| root.join(it).exists());
        found.extend(words::used(&path, &text, &retired));
        found.extend(versions::wrong(&path, &text, &versions));
        if path.ends_with(".md") {
            found.extend(proofs::missing(&text, &tests));
        }
        for Finding { line, what } in found {
            eprintln!("{path}:{line}: {what}");
            findings += 1;
        }
        if let Some(note) = rules::long(&path, &text) {
            println!("{note}");
        }
    }
    findings += check_layouts(root, &layouts, abi, fix)?;
    for (name, sources) in crates::sources(root, &files(root)?)? {
        let graph = Graph::read(&sources).map_err(|error| anyhow!("tidy cannot parse {error}"))?;
        if name == architecture::CRATE {
            findings += knows(root, &graph, fix)?;
        }
        for cycle in graph.room_cycles() {
            eprintln!("{name}: these rooms use each other in a circle: {}", cycle.join(", "));
            findings += 1;
        }
        for cycle in graph.cycles() {
            eprintln!("{name}: these modules use each other in a circle: {}", cycle.join(", "));
            graph.inside(&cycle).iter().for_each(|edge| eprintln!("    {edge}"));
            findings += 1;
        }
    }
    if findings > 0 {
        return Err(anyhow!(Failed(format!("tidy: {findings} broken rules, listed above"))));
    }
    Ok(())
}

/// Compares the "knows" column of ARCHITECTURE.md with the module graph, or rewrites it. Returns the number of findings.
fn knows(root: &Path, graph: &Graph, fix: bool) -> Result<usize> {
    let path = root.join(architecture::FILE);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", architecture::FILE))?;
    let (findings, fixed) = architecture::check(&text, &graph.rooms());
    if fix && fixed != text {
        fs::write(&path, fixed).with_context(|| format!("write {}", architecture::FILE))?;
        return Ok(0);
    }
    findings.iter().for_each(|Finding { line, what }| eprintln!("{}:{line}: {what}", architecture::FILE));
    Ok(findings.len())
}

/// Returns the names of all tests.
fn read_test_names(root: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for path in files(root)?.into_iter().filter(|path| path.ends_with(".rs")) {
        let text = fs::read_to_string(root.join(&path)).with_context(|| format!("read {path}"))?;
        names.extend(rules::tests(&text).map(|(_, name)| name.to_owned()));
    }
    Ok(names)
}

/// Reads the layouts that cross a map.
fn read_layouts(root: &Path) -> Result<Layouts> {
    let paths: Vec<_> = files(root)?.into_iter().filter(|it| it.starts_with(layouts::SOURCES)).collect();
    let read = |path: &String| fs::read_to_string(root.join(path)).with_context(|| format!("read {path}"));
    let texts = paths.iter().map(read).collect::<Result<Vec<_>>>()?;
    let sources = paths.iter().map(String::as_str).zip(texts.iter().map(String::as_str));
    Layouts::read(sources).map_err(|error| anyhow!("tidy cannot parse {error}"))
}

/// Compares the layouts with the snapshot of their version, or writes that of a new version. Returns the number of findings.
fn check_layouts(root: &Path, layouts: &Layouts, version: &str, fix: bool) -> Result<usize> {
    let file = format!("{}/v{version}.txt", layouts::SNAPSHOTS);
    match fs::read_to_string(root.join(&file)) {
        Ok(snapshot) => Ok(layouts.compare(&snapshot).inspect_err(|what| eprintln!("{file}: {what}")).is_err().into()),
        Err(_) if fix => {
            fs::write(root.join(&file), &layouts.text).with_context(|| format!("write {file}")).map(|()| 0)
        }
        Err(_) => {
            eprintln!("{file}: missing; run `cargo xtask tidy --fix` once the layouts of this version are final");
            Ok(1)
        }
    }
}

fn check(path: &str, text: &str, exists: &dyn Fn(&Path) -> bool) -> Vec<Finding> {
    let mut findings = rules::developer_paths(text);
    if path.ends_with(".rs") {
        findings.extend(rules::module_doc(text));
        findings.extend(rules::pure_rooms(path, text));
        findings.extend(rules::one_way(path, text));
        findings.extend(rules::unsafe_code(path, text));
        findings.extend(rules::test_names(text));
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
