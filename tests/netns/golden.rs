//! Compares the output of commands with golden text, except the parts that differ in each run.

use anyhow::{Context as _, Result, ensure};
use expect_test::Expect;
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::lab::{Lab, PATIENCE};
use serde_json::Value;

/// Replaces a value that differs in each run.
const MASK: &str = "*";

/// A command, its exit code, and the parts of its output that differ in each run.
#[derive(Default)]
pub(crate) struct Command<'a> {
    arguments: &'a [&'a str],
    code: i32,
    columns: &'a [&'a str],
    keys: &'a [&'a str],
    nullable: &'a [&'a str],
    ready: Option<fn(&str) -> bool>,
    words: Option<&'a [&'a str]>,
    known: &'a [(&'a str, &'a str)],
}

impl<'a> Command<'a> {
    /// A command that exits with 0. These columns of the table (by their heads) and keys of the JSON differ in each
    /// run.
    pub(crate) fn well(arguments: &'a [&'a str], columns: &'a [&'a str], keys: &'a [&'a str]) -> Self {
        Self { arguments, columns, keys, ..Self::default() }
    }

    /// A command that exits with 1.
    pub(crate) fn unwell(self) -> Self {
        Self { code: 1, ..self }
    }

    /// A command that prints sentences without columns; the word after each of these words differs in each run.
    pub(crate) fn sentences(self, words: &'a [&'a str]) -> Self {
        Self { words: Some(words), ..self }
    }

    /// Keys of the JSON whose values are null in some runs only.
    pub(crate) fn nullable(self, nullable: &'a [&'a str]) -> Self {
        Self { nullable, ..self }
    }

    /// A command that runs again until this holds for its output, table or JSON: it shows a state that may lapse for a
    /// moment, such as an answer of the agent.
    pub(crate) fn once(self, ready: fn(&str) -> bool) -> Self {
        Self { ready: Some(ready), ..self }
    }

    /// A value that is known only in this run, and the name that replaces it.
    pub(crate) fn calling(self, known: &'a [(&'a str, &'a str)]) -> Self {
        Self { known, ..self }
    }

    /// Runs the command on host 1, as table and as JSON.
    pub(crate) fn prints(&self, lab: &Lab, table: &Expect, json: &Expect) -> Result<()> {
        self.prints_table(lab, table)?;
        self.prints_json(lab, json)
    }

    /// Runs the command on host 1 with its table output.
    pub(crate) fn prints_table(&self, lab: &Lab, table: &Expect) -> Result<()> {
        let said = self.run(lab, &[])?;
        table.assert_eq(&self.masked(&said));
        Ok(())
    }

    /// Runs the command on host 1 with its JSON output.
    pub(crate) fn prints_json(&self, lab: &Lab, json: &Expect) -> Result<()> {
        let lines = match &self.json(lab)? {
            Value::Array(rows) => rows.iter().map(|row| format!("{row}\n")).collect(),
            other => format!("{other:#}\n"),
        };
        json.assert_eq(&lines);
        Ok(())
    }

    /// Returns its JSON output on host 1 without the parts that differ in each run.
    pub(crate) fn json(&self, lab: &Lab) -> Result<Value> {
        let said = self.run(lab, &["-j"])?;
        let mut value = serde_json::from_str(&said).with_context(|| said.clone())?;
        mask(&mut value, self.keys);
        for row in value.as_array_mut().into_iter().flatten() {
            self.nullable.iter().for_each(|key| row[*key] = MASK.into());
        }
        Ok(value)
    }

    fn run(&self, lab: &Lab, flags: &[&str]) -> Result<String> {
        let left = eventually_ok(&format!("{:?} shows what is expected", self.arguments), PATIENCE, || {
            let left = lab.proxymatic(&[flags, self.arguments].concat())?;
            ensure!(self.ready.is_none_or(|ready| ready(&left.stdout)), "{left:?}");
            Ok(left)
        })?;
        ensure!(left.status.code() == Some(self.code) && left.stderr.is_empty(), "{:?}: {left:?}", self.arguments);
        ensure!(!left.stdout.contains('\x1b'), "colour though this is no terminal: {left:?}");
        let wide = left.stdout.lines().find(|line| flags.is_empty() && line.chars().count() > 100);
        ensure!(wide.is_none(), "{:?}: more than 100 columns: {wide:?}", self.arguments);
        Ok(self.known.iter().fold(left.stdout, |text, (value, name)| text.replace(value, name)))
    }

    fn masked(&self, text: &str) -> String {
        match self.words {
            Some(words) => unwrapped(text).lines().map(|line| masked_line(line, words) + "\n").collect(),
            None => masked_table(text, self.columns),
        }
    }
}

/// Puts each entry on one line.
fn unwrapped(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        match lines.last_mut().filter(|_| line.starts_with("     ")) {
            Some(last) => *last += &format!(" {}", line.trim_start()),
            None => lines.push(line.to_owned()),
        }
    }
    lines.join("\n")
}

/// Replaces the word that follows each of these words.
pub(crate) fn masked_line(line: &str, words: &[&str]) -> String {
    let mut line = line.to_owned();
    for word in words.iter().copied() {
        let parts: Vec<_> = line.split(word).map(str::to_owned).collect();
        let value = |part: &String| {
            let rest = part.trim_start_matches(|it: char| !it.is_whitespace() && !",;:)".contains(it));
            format!("{MASK}{rest}")
        };
        let rest: Vec<_> = parts.iter().skip(1).map(value).collect();
        line = std::iter::once(parts[0].clone()).chain(rest).collect::<Vec<_>>().join(word);
    }
    line
}

/// Replaces the varying columns of a table. Widths vary with them, so two blanks separate the cells.
fn masked_table(text: &str, columns: &[&str]) -> String {
    let cells = |line: &str| -> Vec<String> {
        line.trim().split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
    };
    // Sentences may precede the table.
    let header = text.lines().find(|line| !line.contains(char::is_lowercase)).map(cells).unwrap_or_default();
    let masked = |line: &str| {
        let mut cells = cells(line);
        for (cell, head) in cells.iter_mut().zip(&header) {
            if columns.contains(&head.as_str()) && cell != head {
                *cell = MASK.to_owned();
            }
        }
        cells.join("  ") + "\n"
    };
    text.lines().map(masked).collect()
}

/// Replaces the values of these keys.
pub(crate) fn mask(value: &mut Value, keys: &[&str]) {
    match value {
        Value::Array(rows) => rows.iter_mut().for_each(|row| mask(row, keys)),
        Value::Object(fields) => {
            for (key, value) in fields {
                if keys.contains(&key.as_str()) && !value.is_null() {
                    *value = MASK.into();
                } else {
                    mask(value, keys);
                }
            }
        }
        _ => {}
    }
}
