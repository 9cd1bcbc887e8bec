//! Colours, for terminals only.

use std::io::{self, IsTerminal as _};

/// Returns whether standard output takes colours: it is a terminal, and the user did not opt out
/// (<https://no-color.org>).
pub(super) fn is_enabled() -> bool {
    let opted_out = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    io::stdout().is_terminal() && !opted_out && !dumb
}

/// Colours a table if standard output takes colours. Only words are coloured, so that columns stay aligned.
pub(super) fn paint(text: String) -> String {
    if is_enabled() { text.split_inclusive('\n').map(line).collect() } else { text }
}

fn line(line: &str) -> String {
    // A header is all in capitals.
    if !line.starts_with("PROBLEM") && line.contains(char::is_alphabetic) && !line.contains(|c: char| c.is_lowercase())
    {
        return format!("\x1b[1m{}\x1b[0m{}", line.trim_end(), &line[line.trim_end().len()..]);
    }
    line.split_inclusive(' ').map(word).collect()
}

fn word(piece: &str) -> String {
    let word = piece.trim_end();
    let code = match word {
        "PROBLEM" | "ejected" | "failed" => "31",
        "draining" | "warming" | "full" | "refused" => "33",
        "active" | "OK" => "32",
        _ => return piece.to_owned(),
    };
    format!("\x1b[{code}m{word}\x1b[0m{}", &piece[word.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_words_are_coloured_and_spacing_stays() {
        assert_eq!(line("NAME  STATE\n"), "\x1b[1mNAME  STATE\x1b[0m\n");
        assert_eq!(line("/web  ejected    1\n"), "/web  \x1b[31mejected\x1b[0m    1\n");
        assert_eq!(line("PROBLEM      no\n"), "\x1b[31mPROBLEM\x1b[0m      no\n");
        assert_eq!(line("/active\n"), "/active\n");
    }
}
