//! The rule for tables of documents with a column `test`: each name in that column is the name of a test.

use std::collections::BTreeSet;

use super::finding::Finding;

/// The head of the last column.
const HEAD: &str = "test";

/// Returns the names in `test` columns of a document that no test has. A row may have no name, and then says so in words.
pub(super) fn missing(text: &str, tests: &BTreeSet<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut is_table = false;
    for (index, line) in text.lines().enumerate() {
        let Some(last) = last_cell(line) else {
            is_table = false;
            continue;
        };
        if !is_table {
            is_table = last == HEAD;
            continue;
        }
        let mut find = |what: String| findings.push(Finding { line: index + 1, what });
        if last.is_empty() {
            find("this row names no test, and does not say why".into());
        }
        for name in last.split('`').skip(1).step_by(2).filter(|name| !tests.contains(*name)) {
            find(format!("there is no test `{name}`"));
        }
    }
    findings
}

/// Returns the last cell of a row of a table.
fn last_cell(line: &str) -> Option<&str> {
    let row = line.strip_prefix('|')?.trim_end().strip_suffix('|')?;
    Some(row.rsplit('|').next()?.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let tests = ["one_is_one", "two_is_two"].map(String::from).into();
        missing(text, &tests).iter().map(|it| format!("{}: {}", it.line, it.what)).collect()
    }

    #[test]
    fn names_of_tests_pass() {
        let none: [&str; 0] = [];
        assert_eq!(
            found("| a | test |\n| --- | --- |\n| `x` | `one_is_one`, `two_is_two` |\n| y | none: it is obvious |\n"),
            none
        );
        assert_eq!(found("| a | b |\n| --- | --- |\n| x | `gone` |\n\n`gone`\n"), none, "no such column");
    }

    #[test]
    fn names_of_no_test_are_found() {
        let text = "| a | test |\n| --- | --- |\n| x | `gone`, `one_is_one` |\n| y | |\n\n| a | b |\n| x | `gone` |\n";
        assert_eq!(found(text), ["3: there is no test `gone`", "4: this row names no test, and does not say why"]);
    }
}
