//! The rule for Markdown: the target of a relative link exists.

use std::path::Path;

use super::finding::Finding;

/// Returns the relative links of a Markdown file whose target does not exist. Code, fenced or quoted, is ignored.
pub(super) fn broken(path: &str, text: &str, exists: &dyn Fn(&Path) -> bool) -> Vec<Finding> {
    let folder = Path::new(path).parent().unwrap_or(Path::new(""));
    let mut findings = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for target in targets(&without_code(line)) {
            if !exists(&folder.join(target)) {
                let what = format!("the link to `{target}` leads nowhere");
                findings.push(Finding { line: index + 1, what });
            }
        }
    }
    findings
}

/// Returns the targets of a line's links, of the forms `[text](target)`, `[text](target "title")` and `[name]: target`.
fn targets(line: &str) -> Vec<&str> {
    let inline = line.split("](").skip(1).filter_map(|it| it.split(')').next());
    let definition = line.strip_prefix('[').and_then(|it| it.split_once("]: "));
    inline
        .chain(definition.map(|(_, target)| target))
        .filter_map(|it| it.split_whitespace().next())
        .filter_map(|it| it.split('#').next())
        .filter(|it| !it.is_empty() && !it.contains("://") && !it.starts_with("mailto:"))
        .collect()
}

/// Returns the line without its `quoted` parts: every second piece between backticks.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Vec<String> {
        let exists = |path: &Path| path == Path::new("docs/operating.md");
        let findings = broken("docs/index.md", text, &exists);
        findings.into_iter().map(|it| format!("{}: {}", it.line, it.what)).collect()
    }

    #[test]
    fn links_to_existing_files_pass() {
        let none: [&str; 0] = [];
        assert_eq!(check("[a](operating.md) and [b](operating.md#flags \"title\")"), none);
        assert_eq!(check("[a](https://x.org/y) [b](#here) [c](mailto:a@b.org)"), none);
        assert_eq!(check("`[a](b)`\n```\n[a](b)\n```"), none);
        assert_eq!(check("[a]: operating.md"), none);
        assert_eq!(check("An array `a` of [u8](operating.md)"), none);
    }

    #[test]
    fn links_to_missing_files_are_found() {
        assert_eq!(
            check("fine\n[a](operating.md) [b](gone.md#x)\n[c]: gone.md"),
            ["2: the link to `gone.md` leads nowhere", "3: the link to `gone.md` leads nowhere"]
        );
    }
}
