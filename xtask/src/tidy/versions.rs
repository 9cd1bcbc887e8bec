//! The rule for documents: each version number in them is that of the package, or that of the map ABI.
//!
//! The documents' tests compare what the program prints without its numbers, so a bump would leave old numbers there.

use super::finding::Finding;

/// What stands before a version of the package in documents and files of deployment.
const BEFORE_PACKAGE: [&str; 6] =
    ["agent ", "this command ", "proxymatic ", "proxymatic:", "proxymatic_", "proxymatic-"];
/// What stands before a version of the map ABI there.
const BEFORE_ABI: [&str; 7] =
    ["data plane ", "ABI version ", "\"abi\": ", "abi=\"", "/nowhere/v", "proxymatic/v", "layouts/v"];
/// What stands before a version of the past.
const PAST: &str = "until map ";
/// The file of past versions.
const HISTORY: &str = "CHANGELOG.md";

/// The current versions.
#[derive(Debug)]
pub(super) struct Versions<'a> {
    pub(super) package: &'a str,
    pub(super) abi: &'a str,
}

/// Returns the version numbers of a document that are not the current ones.
pub(super) fn wrong(path: &str, text: &str, current: &Versions<'_>) -> Vec<Finding> {
    let is_document = path.ends_with(".md") || ["deploy/", "vagrant/"].iter().any(|folder| path.starts_with(folder));
    if !is_document || path == HISTORY {
        return Vec::new();
    }
    let Versions { package, abi } = current;
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut compare = |found: &str, right: &str, source: &str| {
            if found != right {
                let what = format!("the version here is {found}, but {source} has {right}");
                findings.push(Finding { line: index + 1, what });
            }
        };
        for found in BEFORE_PACKAGE.iter().flat_map(|before| numbers(line, before)) {
            if found.split('.').count() == 3 {
                compare(found, package, "Cargo.toml");
            }
        }
        for found in BEFORE_ABI.iter().flat_map(|before| numbers(line, before)) {
            compare(found, abi, "ABI_VERSION");
        }
    }
    findings
}

/// Returns the numbers behind this text in a line, with their dots. A number of the past is left out.
fn numbers<'a>(line: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(before).filter_map(move |(at, _)| {
        let rest = &line[at + before.len()..];
        let end = rest.find(|it: char| !it.is_ascii_digit() && it != '.').unwrap_or(rest.len());
        let number = rest[..end].trim_end_matches('.');
        (number.starts_with(|it: char| it.is_ascii_digit()) && !line[..at].ends_with(PAST)).then_some(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let wrong = wrong(path, text, &Versions { package: "0.1.0", abi: "5" });
        wrong.into_iter().map(|it| format!("{}: {}", it.line, it.what)).collect()
    }

    #[test]
    fn current_versions_are_accepted() {
        for text in [
            "versions   agent 0.1.0, data plane 5, this command 0.1.0",
            "nothing is pinned under /nowhere/v5; start the agent",
            "apt install ./target/dist/proxymatic_0.1.0-1_amd64.deb",
            "Paths are /v1/services and /v2/apps. An agent 0.1 µs later, with proxymatic 2 times.",
            "as they were until map ABI version 4.",
        ] {
            assert_eq!(found("docs/a.md", text), [] as [String; 0], "{text}");
        }
    }

    #[test]
    fn other_versions_are_named_with_the_right_one() {
        let abi = |line: u8, found: &str| format!("{line}: the version here is {found}, but ABI_VERSION has 5");
        let package = ["1: the version here is 0.2.0, but Cargo.toml has 0.1.0"];
        assert_eq!(found("README.md", "agent 0.2.0, data plane 5, this command 0.1.0"), package);
        assert_eq!(found("deploy/a.service", "IMAGE=registry.example/proxymatic:0.2.0"), package);
        assert_eq!(found("docs/a.md", "\nunder /nowhere/v6; data plane 4."), [abi(2, "4"), abi(2, "6")]);
        assert_eq!(found("docs/a.md", "the map ABI version 4 serves"), [abi(1, "4")]);
    }

    #[test]
    fn sources_and_the_changelog_have_versions_of_their_own() {
        assert_eq!(found("a.rs", "data plane 4"), [] as [String; 0]);
        assert_eq!(found("CHANGELOG.md", "data plane 4, agent 0.0.1"), [] as [String; 0]);
    }
}
