//! Retired words: the words of the last table of docs/glossary.md are used nowhere in the tree.

use std::collections::BTreeMap;

use super::finding::Finding;

/// The file with the table.
pub(super) const GLOSSARY: &str = "docs/glossary.md";
/// The heading of their table.
const HEADING: &str = "## Retired words";
/// Texts about earlier times: release notes, and reports of earlier runs.
const EXEMPT: [&str; 3] = ["CHANGELOG.md", GLOSSARY, "docs/bench/"];

/// Returns each retired word with its replacement, from the text of the glossary.
///
/// # Errors
/// The glossary has no table of retired words, or an empty one.
pub(super) fn retired(glossary: &str) -> Result<BTreeMap<String, String>, String> {
    let (_, table) = glossary.split_once(HEADING).ok_or_else(|| format!("{GLOSSARY} has no \"{HEADING}\""))?;
    let cell = |text: &str| text.trim().strip_prefix('`')?.strip_suffix('`').map(str::to_owned);
    let rows = table.lines().filter_map(|line| {
        let mut cells = line.strip_prefix('|')?.split('|');
        Some((cell(cells.next()?)?, cell(cells.next()?)?))
    });
    let words: BTreeMap<_, _> = rows.collect();
    if words.is_empty() { Err(format!("the table below \"{HEADING}\" in {GLOSSARY} is empty")) } else { Ok(words) }
}

/// Returns the retired words in a file, in code and comments alike.
pub(super) fn used(path: &str, text: &str, retired: &BTreeMap<String, String>) -> Vec<Finding> {
    if EXEMPT.iter().any(|exempt| path.starts_with(exempt)) {
        return Vec::new();
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let lines = text.lines().enumerate();
    lines
        .flat_map(|(index, line)| {
            let words = line.split(|c| !is_part(c));
            words.filter_map(move |word| {
                let what = format!("`{word}` is retired: write `{}` ({GLOSSARY})", retired.get(word)?);
                Some(Finding { line: index + 1, what })
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Glossary\n\n| word | meaning |\n| `a` | `b` |\n\n## Retired words\n\n| retired | now |\n| --- | --- |\n| `old_word` | `new_word` |\n";

    #[test]
    fn only_the_last_table_retires_words() {
        let retired = retired(TEXT).unwrap();
        assert_eq!(retired, BTreeMap::from([("old_word".to_owned(), "new_word".to_owned())]));
        assert!(super::retired("# Glossary").is_err());
        assert!(super::retired("## Retired words\n\nnone\n").is_err());
    }

    #[test]
    fn retired_word_is_found_in_code_comments_and_documents() {
        let retired = retired(TEXT).unwrap();
        let lines = |path, text| used(path, text, &retired).into_iter().map(|it| it.line).collect::<Vec<_>>();
        assert_eq!(lines("src/a.rs", "let old_word = 1; // an old_word\nlet my_old_word = old_words;\n"), [1, 1]);
        assert_eq!(lines("docs/a.md", "fine\n`old_word`\n"), [2]);
        assert_eq!(lines("CHANGELOG.md", "`old_word` is `new_word` now\n"), [0; 0]);
    }
}
