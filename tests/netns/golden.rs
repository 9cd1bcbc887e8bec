//! What the commands print, compared word by word but for what is another each time.

use anyhow::{Context as _, Result, ensure};
use expect_test::Expect;
use proxymatic_tests::lab::Lab;
use serde_json::Value;

/// What stands in the place of a value that is another each time.
const MASK: &str = "*";

/// A command, its exit code, and what of its output is another each time: columns of the table by their heads, and keys of
/// the JSON.
pub(crate) struct Command<'a> {
    pub(crate) arguments: &'a [&'a str],
    pub(crate) code: i32,
    pub(crate) columns: &'a [&'a str],
    pub(crate) keys: &'a [&'a str],
}

impl Command<'_> {
    /// Runs it on host 1 for people and for programs.
    pub(crate) fn prints(&self, lab: &Lab, table: &Expect, json: &Expect) -> Result<()> {
        table.assert_eq(&masked_table(&self.run(lab, &[])?, self.columns));
        let said = self.run(lab, &["-j"])?;
        let mut value: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
        mask(&mut value, self.keys);
        let lines = match &value {
            Value::Array(rows) => rows.iter().map(|row| format!("{row}\n")).collect(),
            other => format!("{other:#}\n"),
        };
        json.assert_eq(&lines);
        Ok(())
    }

    fn run(&self, lab: &Lab, flags: &[&str]) -> Result<String> {
        let left = lab.proxymatic(&[flags, self.arguments].concat())?;
        ensure!(left.status.code() == Some(self.code) && left.stderr.is_empty(), "{:?}: {left:?}", self.arguments);
        ensure!(!left.stdout.contains('\x1b'), "colour though this is no terminal: {left:?}");
        let wide = left.stdout.lines().find(|line| flags.is_empty() && line.chars().count() > 100);
        ensure!(wide.is_none(), "{:?}: more than 100 columns: {wide:?}", self.arguments);
        Ok(left.stdout)
    }
}

/// A table without what is another each time, and so without its widths: cells with two blanks between.
fn masked_table(text: &str, columns: &[&str]) -> String {
    let cells = |line: &str| -> Vec<String> {
        line.trim().split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
    };
    let header = text.lines().next().map(cells).unwrap_or_default();
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

fn mask(value: &mut Value, keys: &[&str]) {
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
