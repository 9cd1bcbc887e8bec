//! Rules for the text of one file. Each rule takes the text and returns its findings.

use super::finding::Finding;

/// Files (or folders, with a slash at the end) that may have unsafe code, with the reason.
const UNSAFE: [(&str, &str); 10] = [
    ("proxymatic-common/src/cell.rs", "counters that the kernel writes too: volatile there, atomic here"),
    ("proxymatic-common/src/lib.rs", "declares the types that cross a map to be plain bytes"),
    ("proxymatic-ebpf/src/ebpf_object.rs", "the licence is a symbol in a section that the loader reads"),
    ("proxymatic-ebpf/src/feature_probes.rs", "one call of each helper that is probed for"),
    ("proxymatic-ebpf/src/feature_probes_maps.rs", "the same"),
    ("proxymatic-ebpf/src/bench_xdp_pktgen.rs", "a frame is what a raw pointer points to"),
    ("proxymatic-ebpf/src/maps.rs", "map lookups return raw pointers"),
    ("proxymatic-ebpf/src/hooks/", "contexts are raw pointers, helpers are foreign functions"),
    ("proxymatic-user/src/dataplane/kernel/", "mapped memory and raw bpf(2) calls"),
    ("tests/src/bin/connect-variants/uring.rs", "the kernel works on what an io_uring operation points to"),
];

/// Names that the pure rooms may not use: I/O, runtime, and clock.
const IMPURE: [&str; 9] =
    ["tokio", "aya", "std::fs", "fs::read", "TcpStream", "TcpListener", "UdpSocket", "Instant::now", "SystemTime"];

const PURE: [&str; 2] = ["model", "plan"];

/// The rooms that a room of the agent may use: data flows one way, source, model, plan, dataplane.
const ROOMS: [(&str, &[&str]); 5] = [
    ("model", &[]),
    ("source", &["model"]),
    ("state", &["model", "source"]),
    ("plan", &["model"]),
    ("dataplane", &["plan"]),
];

/// Most characters of a test name: with its module it fits on one line of a report.
const TEST_NAME: usize = 60;

const NOTE_ABOVE: usize = 400;
const ERROR_ABOVE: usize = 800;

/// Every module begins with a line about its purpose.
pub(super) fn module_doc(text: &str) -> Option<Finding> {
    let said = text.lines().take(3).any(|line| line.starts_with("//!"));
    (!said).then(|| finding(1, "begin with a `//!` line that says what this module is for"))
}

/// Model and plan compute: no I/O, no clock, no runtime.
pub(super) fn pure_rooms(path: &str, text: &str) -> Vec<Finding> {
    let Some(room) = room(path).filter(|it| PURE.contains(it)) else {
        return Vec::new();
    };
    let warning = |it: &str| format!("`{room}` is pure and may not name `{it}`");
    scan(text, |code| IMPURE.iter().find(|it| names(code, it)).map(|it| warning(it)))
}

/// A room uses only the rooms before it.
pub(super) fn one_way(path: &str, text: &str) -> Vec<Finding> {
    let Some((room, may)) = room(path).and_then(|it| ROOMS.iter().find(|(name, _)| *name == it)) else {
        return Vec::new();
    };
    let wrong = |other: &str| other != *room && !may.contains(&other);
    scan(text, |code| {
        ["model", "source", "plan", "dataplane", "surface", "cli", "agent"]
            .into_iter()
            .find(|other| wrong(other) && names(code, &format!("crate::{other}")))
            .map(|other| format!("`{room}` may not name `{other}`: data flows one way"))
    })
}

/// Unsafe code is only in the listed files.
pub(super) fn unsafe_code(path: &str, text: &str) -> Vec<Finding> {
    let allowed = |place: &str| place == path || place.ends_with('/') && path.starts_with(place);
    if UNSAFE.iter().any(|(place, _)| allowed(place)) {
        return Vec::new();
    }
    // In two parts, so that this file has no violation.
    let word = concat!("un", "safe");
    let warning = || format!("{word} code is kept to the files listed in xtask/src/tidy/rules.rs");
    scan(text, |code| names(code, word).then(warning))
}

/// A test has a short name: `<thing>_<condition>_<result>`.
pub(super) fn test_names(text: &str) -> Vec<Finding> {
    let length = |name: &str| name.chars().count();
    let long = tests(text).filter(|(_, name)| length(name) > TEST_NAME);
    let what = |name: &str| format!("the test name `{name}` has {} characters, {TEST_NAME} at most", length(name));
    long.map(|(line, name)| finding(line, &what(name))).collect()
}

/// Returns the line and the name of each test.
pub(super) fn tests(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_test = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let code = line.trim_start();
        if ["#[test]", "#[tokio::test"].iter().any(|attribute| code.starts_with(attribute)) {
            is_test = true;
            return None;
        }
        let name = function(code).filter(|_| is_test)?;
        is_test = false;
        Some((index + 1, name))
    })
}

/// The name of the function that this line declares, if it declares one.
fn function(code: &str) -> Option<&str> {
    let (before, after) = code.split_once("fn ")?;
    let is_modifier = |word: &str| ["async", "const", "pub", "pub(crate)", "pub(super)"].contains(&word);
    before.split_whitespace().all(is_modifier).then(|| after.split(['(', '<']).next())?
}

/// No tracked file names a path of a developer's machine.
pub(super) fn developer_paths(text: &str) -> Vec<Finding> {
    // In two parts, as above.
    let forbidden = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];
    let lines = text.lines().enumerate();
    lines
        .filter_map(|(index, line)| {
            let path = forbidden.iter().find(|it| begins_a_path(line, it))?;
            Some(finding(index + 1, &format!("`{path}` is a path of one developer's machine")))
        })
        .collect()
}

/// A file this long must be split.
pub(super) fn too_long(text: &str) -> Option<Finding> {
    let length = text.lines().count();
    (length > ERROR_ABOVE).then(|| finding(length, &format!("{length} lines: split it")))
}

/// Returns a note about a file that may soon be too long.
pub(super) fn long(path: &str, text: &str) -> Option<String> {
    let length = text.lines().count();
    let long = path.ends_with(".rs") && length > NOTE_ABOVE && length <= ERROR_ABOVE;
    long.then(|| format!("note: {path} has {length} lines; is it one thing?"))
}

/// Returns the room of the agent that a file belongs to: `proxymatic-user/src/ROOM.rs` or below `ROOM/`.
fn room(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("proxymatic-user/src/")?;
    inside.split('/').next()?.split('.').next()
}

/// Applies a rule to the code of each line, without comments.
fn scan(text: &str, rule: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let lines = text.lines().enumerate();
    lines
        .filter_map(|(index, line)| {
            let code = line.split("//").next()?;
            Some(finding(index + 1, &rule(code)?))
        })
        .collect()
}

/// Whether code has this name as a whole word: `aya` is not in `playable`.
fn names(code: &str, name: &str) -> bool {
    let word = |it: char| it.is_alphanumeric() || it == '_';
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + name.len()..].chars().next();
        !before.is_some_and(word) && !after.is_some_and(word)
    })
}

/// Whether an absolute path with this prefix is in the line; `a/b/c` and `http://a/b/c` are none.
fn begins_a_path(line: &str, prefix: &str) -> bool {
    let inside = |it: char| it.is_alphanumeric() || "._-/}*".contains(it);
    line.match_indices(prefix).any(|(at, _)| !line[..at].ends_with(inside))
}

fn finding(line: usize, what: &str) -> Finding {
    Finding { line, what: what.to_owned() }
}

#[cfg(test)]
mod tests;
