//! Parses a Markdown file into the steps that a lab executes.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};

/// A document.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) file: PathBuf,
    pub(super) text: String,
    pub(super) steps: Vec<Step>,
}

/// One step.
#[derive(Debug)]
pub(super) enum Step {
    /// `<!-- lab: ... -->`: an event that the page does not show.
    Lab(String),
    /// ```` ```json app ````: Marathon gets this app.
    App(String),
    /// ```` ```console ````.
    Block(Block),
}

/// Commands and their outputs.
#[derive(Debug)]
pub(super) struct Block {
    /// The reason not to run the block: ```` ```console not run: REASON ````.
    pub(super) not_run: Option<String>,
    /// Each command with its output as whole lines.
    pub(super) commands: Vec<(String, String)>,
}

impl Step {
    pub(super) fn block(&self) -> Option<&Block> {
        match self {
            Self::Block(block) => Some(block),
            Self::Lab(_) | Self::App(_) => None,
        }
    }
}

impl Page {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut steps = Vec::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(event) = line.strip_prefix("<!-- lab: ").and_then(|it| it.strip_suffix(" -->")) {
                steps.push(Step::Lab(event.to_owned()));
            }
            let Some(info) = line.strip_prefix("```") else { continue };
            let inside: Vec<_> = lines.by_ref().take_while(|it| *it != "```").collect();
            match info.split_once(' ').unwrap_or((info, "")) {
                ("", _) => bail!("a block has no kind (console, json, text): {inside:?}"),
                ("console", how) => steps.push(Step::Block(Block::parse(how, &inside)?)),
                ("json", "app") => steps.push(Step::App(inside.join("\n"))),
                _ => {}
            }
        }
        Ok(Self { file: PathBuf::new(), text: text.to_owned(), steps })
    }
}

impl Block {
    fn parse(how: &str, lines: &[&str]) -> Result<Self> {
        let not_run = how.strip_prefix("not run: ").map(str::to_owned);
        ensure!(how.is_empty() || not_run.is_some(), "`console {how}`: write `console` or `console not run: REASON`");
        let mut commands: Vec<(String, String)> = Vec::new();
        for line in lines {
            match (line.strip_prefix("$ "), commands.last_mut()) {
                (Some(command), _) => commands.push((command.to_owned(), String::new())),
                (None, Some((command, output))) if command.ends_with('\\') && output.is_empty() => {
                    *command += &format!("\n{line}");
                }
                (None, Some((_, output))) => *output += &format!("{line}\n"),
                (None, None) => bail!("a block of commands begins with `$ `, not with {line:?}"),
            }
        }
        ensure!(!commands.is_empty(), "a block of commands has none");
        Ok(Self { not_run, commands })
    }
}

/// Whether the shown output equals the printed output word by word. A number matches any number, a line `...` matches
/// any lines, a word `...` matches the rest of its line. Blank lines are ignored.
pub(super) fn same(shown: &str, printed: &str) -> bool {
    let lines = |text: &str| -> Vec<_> { text.lines().map(words).filter(|it| !it.is_empty()).collect() };
    lines_match(&lines(shown), &lines(printed))
}

fn lines_match(shown: &[Vec<String>], printed: &[Vec<String>]) -> bool {
    match shown {
        [] => printed.is_empty(),
        [any, rest @ ..] if any.as_slice() == ["..."] => {
            (0..=printed.len()).any(|skipped| lines_match(rest, &printed[skipped..]))
        }
        [first, rest @ ..] => {
            printed.split_first().is_some_and(|(line, after)| line_matches(first, line) && lines_match(rest, after))
        }
    }
}

fn line_matches(shown: &[String], printed: &[String]) -> bool {
    match shown.split_last() {
        Some((last, before)) if last == "..." => printed.starts_with(before),
        _ => shown == printed,
    }
}

/// The words of a line without the parts that differ in each run: numbers, bars, task ids, and the name of the
/// answering replica.
fn words(line: &str) -> Vec<String> {
    let word = |word: &str| {
        let drawn = word.chars().all(|it| it == '#');
        if drawn || word.contains("._app.") || ["a", "b", "c"].contains(&word) {
            return "*".to_owned();
        }
        let mut plain = String::new();
        for letter in word.chars() {
            match letter {
                '0'..='9' if plain.ends_with('0') => {}
                '0'..='9' => plain.push('0'),
                other => plain.push(other),
            }
        }
        // A number with a fraction equals one without, and `12.6s` equals `1m03s`.
        let plain = plain.replace("0.0", "0");
        ["0m0s", "0h0m", "0d0h"].iter().fold(plain, |plain, long| plain.replace(*long, "0s"))
    };
    line.split_whitespace().map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_comparison_ignores_numbers_but_not_words() {
        assert!(same("a  12 ms\n", "a 7.5 ms\n"));
        assert!(same("out for 12.6s\n", "out for 1m03s\n") && same("2h05m, b\n", "1.0s, b\n"));
        assert!(same("/web  10.77.0.1:8001\n", "/web 10.77.0.2:8002\n"));
        assert!(!same("a 12 ms\n", "a 12 s\n"));
        assert!(!same("a\n", "a\nb\n"));
        assert!(!same("a\nb\n", "a\n"));
    }

    #[test]
    fn page_dots_match_lines_and_the_rest_of_a_line() {
        assert!(same("a\n...\nd\n", "a\nb\nc\nd\n"));
        assert!(same("a\n...\n", "a\n"));
        assert!(same("a b ...\n", "a b c d\n"));
        assert!(!same("a\n...\nd\n", "a\nb\n"));
    }

    #[test]
    fn page_block_is_run_or_has_a_reason() {
        let page = Page::parse("```console\n$ a\nx\n$ b\n```\n```console not run: no hub\n$ c\n```\n").unwrap();
        let blocks: Vec<_> = page.steps.iter().filter_map(Step::block).collect();
        assert_eq!(blocks[0].commands, [("a".into(), "x\n".into()), ("b".into(), String::new())]);
        assert_eq!((&blocks[0].not_run, blocks[1].not_run.as_deref()), (&None, Some("no hub")));
        for wrong in ["```\na\n```", "```console\na\n```", "```console later\n$ a\n```", "```console\n```"] {
            assert!(Page::parse(wrong).is_err(), "{wrong}");
        }
    }
}
