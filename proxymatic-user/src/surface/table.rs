//! Tables for terminals: without lines, numbers aligned right, never wider than [`WIDTH`].

use comfy_table::{CellAlignment, Table};

/// The largest width of a table, in columns of a terminal.
pub(super) const WIDTH: usize = 100;

/// The gap between two columns, in characters.
const GAP: usize = 2;

/// The smallest width to which a column is cut, in characters.
const LEAST: usize = 8;

/// Renders a table; the columns named in `numbers` are aligned right. If the table is too wide, the widest columns are
/// cut first. Texts are cut at the front, where names differ least.
pub(super) fn table(header: &[&str], numbers: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut rows: Vec<_> = rows.collect();
    fit(header, numbers, &mut rows);
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(header);
    for (i, name) in header.iter().enumerate() {
        if let Some(column) = table.column_mut(i) {
            column.set_padding((0, GAP as u16));
            if numbers.contains(name) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    for row in rows {
        table.add_row(row);
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn fit(header: &[&str], numbers: &[&str], rows: &mut [Vec<String>]) {
    let mut widths: Vec<usize> = header.iter().map(|name| name.len()).collect();
    for row in &*rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut over = (widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)).saturating_sub(WIDTH);
    let before = widths.clone();
    while over > 0 {
        let texts = (0..header.len()).filter(|i| !numbers.contains(&header[*i]) && widths[*i] > LEAST);
        let Some(widest) = texts.max_by_key(|i| widths[*i]) else { break };
        widths[widest] -= 1;
        over -= 1;
    }
    for row in rows {
        for ((cell, width), before) in row.iter_mut().zip(&widths).zip(&before) {
            if width < before {
                *cell = shorten(cell, *width);
            }
        }
    }
}

/// Cuts a text at the front and keeps the end, where names and task ids differ.
pub(super) fn shorten(text: &str, most: usize) -> String {
    let length = text.chars().count();
    if length <= most {
        return text.to_owned();
    }
    "..".chars().chain(text.chars().skip(length - (most - 2))).collect()
}

/// Formats a count: three digits and a prefix, such as `12.3k`.
pub(super) fn count(n: u64) -> String {
    let mut value = n as f64;
    for prefix in ["", "k", "M", "G", "T"] {
        // A value that would round to four digits gets the next prefix.
        if value < 999.5 {
            let digits = usize::from(!prefix.is_empty() && value < 99.95);
            return format!("{value:.digits$}{prefix}");
        }
        value /= 1000.0;
    }
    format!("{value:.0}P")
}

/// Formats a duration in seconds.
pub(super) fn time(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{seconds:.1}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
        _ => format!("{}d{:02}h", whole / 86_400, whole / 3600 % 24),
    }
}

/// Formats a round trip time in microseconds.
pub(super) fn rtt(us: u64) -> String {
    match us {
        0..1000 => format!("{us}us"),
        1000..100_000 => format!("{:.1}ms", us as f64 / 1000.0),
        _ => format!("{:.0}ms", us as f64 / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_name_keeps_its_end() {
        assert_eq!(shorten("abc", 5), "abc");
        assert_eq!(shorten("abcdefgh", 5), "..fgh");
    }

    #[test]
    fn table_fits_the_terminal_and_keeps_numbers_whole() {
        let row = vec!["/a/very/long/name".repeat(9), "123456789".into(), "task.".repeat(20)];
        let text = table(&["SERVICE", "TOTAL", "TASK"], &["TOTAL"], std::iter::once(row));
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.contains(" 123456789 ") && text.contains("/name "), "{text}");
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert_eq!(widest, Some(WIDTH), "the table must use the whole width");
    }

    #[test]
    fn quantities_are_formatted_short() {
        let counts = [0, 999, 1000, 12_345, 999_499, 999_500, 5_000_000_000].map(count);
        assert_eq!(counts, ["0", "999", "1.0k", "12.3k", "999k", "1.0M", "5.0G"]);
        assert_eq!([0.04, 59.9, 61.0, 3661.0, 90_000.0].map(time), ["0.0s", "59.9s", "1m01s", "1h01m", "1d01h"]);
        assert_eq!([74, 1500, 250_000].map(rtt), ["74us", "1.5ms", "250ms"]);
    }
}
