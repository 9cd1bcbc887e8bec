//! The code map of ARCHITECTURE.md: each room of the agent has a row, whose last column names the rooms that it uses.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::Finding;

pub(super) const FILE: &str = "ARCHITECTURE.md";
/// The crate that has the rooms.
pub(super) const CRATE: &str = "proxymatic-user/src";
/// Modules at the root that are not rooms.
const NO_ROOMS: [&str; 1] = ["bin"];

/// Compares the column with the rooms that each room uses. Returns what is wrong, and the text with the right column.
pub(super) fn check(text: &str, rooms: &BTreeMap<String, BTreeSet<String>>) -> (Vec<Finding>, String) {
    let mut findings = Vec::new();
    let mut missing: BTreeSet<_> = rooms.keys().filter(|room| !NO_ROOMS.contains(&room.as_str())).collect();
    let mut fixed = String::with_capacity(text.len());
    for (index, line) in text.lines().enumerate() {
        let row = room(line).and_then(|room| rooms.get_key_value(room));
        if let Some((room, used)) = row {
            missing.remove(room);
            let right = knows(used);
            let (before, column) = line.trim_end_matches('|').trim_end().rsplit_once('|').unwrap_or((line, ""));
            if column.trim() != right {
                let what = format!("room `{room}` uses {right}, not {}: run `cargo xtask tidy --fix`", column.trim());
                findings.push(Finding { line: index + 1, what });
            }
            fixed.push_str(&format!("{before}| {right} |\n"));
        } else {
            fixed.push_str(line);
            fixed.push('\n');
        }
    }
    for room in missing {
        let what = format!("room `{room}` has no row that begins with `{CRATE}/{room}/` or `{CRATE}/{room}.rs`");
        findings.push(Finding { line: 1, what });
    }
    (findings, fixed)
}

/// Returns the room of a table row, which begins with the folder or the file of the room.
fn room(line: &str) -> Option<&str> {
    let inside = line.strip_prefix("| `")?.strip_prefix(CRATE)?.strip_prefix('/')?;
    let (path, _) = inside.split_once('`')?;
    path.strip_suffix('/').or_else(|| path.strip_suffix(".rs")).filter(|room| !room.contains('/'))
}

fn knows(used: &BTreeSet<String>) -> String {
    if used.is_empty() { "nothing".into() } else { used.iter().map(String::as_str).collect::<Vec<_>>().join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "| room | job | knows |\n| --- | --- | --- |\n| `proxymatic-user/src/a/` | first | b |\n\
                        | `proxymatic-user/src/b.rs` | second | nothing |\n| `proxymatic-user/src/a/x.rs` | part | any |\n";

    fn rooms(of_a: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
        let used = of_a.iter().map(|room| (*room).to_owned()).collect();
        BTreeMap::from([("a".to_owned(), used), ("b".to_owned(), BTreeSet::new())])
    }

    #[test]
    fn right_column_is_left_alone() {
        assert_eq!(check(TEXT, &rooms(&["b"])), (vec![], TEXT.to_owned()));
    }

    #[test]
    fn wrong_column_is_named_and_fixed() {
        let (findings, fixed) = check(TEXT, &rooms(&["b", "c"]));
        assert_eq!((findings.len(), findings[0].line), (1, 3));
        assert_eq!(check(&fixed, &rooms(&["b", "c"])), (vec![], TEXT.replace("first | b |", "first | b, c |")));
    }

    #[test]
    fn room_without_a_row_is_named() {
        let mut rooms = rooms(&["b"]);
        rooms.insert("c".into(), BTreeSet::new());
        let (findings, _) = check(TEXT, &rooms);
        assert!(findings[0].what.starts_with("room `c` has no row"), "{findings:?}");
    }
}
