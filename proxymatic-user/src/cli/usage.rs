//! Error messages for invalid command lines: one line with the mistake and the nearest valid word.

use std::ffi::OsString;

use clap::{
    Command,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::model::suggest;

/// Returns an error of clap in one line.
pub(super) fn one_line(error: &clap::Error, root: &Command, arguments: &[OsString]) -> String {
    let (path, here) = select_command(root, arguments);
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    match error.kind() {
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            format!("missing subcommand; expected one of {}; see `{path} help`", verbs(here).join(", "))
        }
        ErrorKind::InvalidSubcommand => {
            let what = if here.get_name() == root.get_name() { "object" } else { "verb" };
            unknown(what, &context(ContextKind::InvalidSubcommand), &path, &verbs(here))
        }
        ErrorKind::UnknownArgument => {
            let wrong = context(ContextKind::InvalidArg);
            if wrong.starts_with('-') {
                let flags: Vec<_> =
                    here.get_arguments().chain(root.get_arguments()).filter_map(|it| it.get_long()).collect();
                let flags: Vec<_> = flags.iter().map(|flag| format!("--{flag}")).collect();
                unknown("flag", &wrong, &path, &flags)
            } else if here.has_subcommands() {
                unknown("verb", &wrong, &path, &verbs(here))
            } else {
                format!("{path} takes no {wrong}; see `{path} --help`")
            }
        }
        _ => join_lines(&error.to_string()),
    }
}

/// Combines all errors about the arguments, one below the other.
pub(super) fn join_errors(wrong: Vec<String>) -> anyhow::Error {
    anyhow::anyhow!(lines(wrong).join("\n            "))
}

/// Returns the errors, each in one line: a newline in an argument is escaped.
pub(super) fn lines(wrong: Vec<String>) -> Vec<String> {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    wrong.into_iter().map(|error| error.chars().map(shown).collect()).collect()
}

fn unknown(what: &str, wrong: &str, path: &str, known: &[String]) -> String {
    let names: Vec<&str> = known.iter().map(String::as_str).collect();
    format!("{path} has no {what} {wrong}: the nearest is {}; see `{path} --help`", suggest(wrong, &names))
}

/// Returns the command that the words of a command line select, and the path of these words.
fn select_command<'a>(root: &'a Command, arguments: &[OsString]) -> (String, &'a Command) {
    let (mut path, mut here) = (root.get_name().to_owned(), root);
    for argument in arguments.iter().skip(1).filter_map(|argument| argument.to_str()) {
        if let Some(below) = here.find_subcommand(argument) {
            path = format!("{path} {argument}");
            here = below;
        }
    }
    (path, here)
}

fn verbs(command: &Command) -> Vec<String> {
    let shown = command.get_subcommands().filter(|below| !below.is_hide_set());
    shown.map(|below| below.get_name().to_owned()).collect()
}

/// Joins the lines of an error of clap, without the usage text after it.
fn join_lines(text: &str) -> String {
    let lines =
        text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let lines = lines.filter(|line| !line.is_empty()).map(|line| line.trim_start_matches("error: "));
    let mut whole = String::new();
    for line in lines {
        let tip = line.strip_prefix("tip: ");
        let between = if whole.is_empty() {
            ""
        } else if tip.is_some() {
            "; "
        } else {
            " "
        };
        whole += between;
        whole += tip.unwrap_or(line);
    }
    whole
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::{super::Cli, *};

    fn message(line: &str) -> String {
        let arguments: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let error = Cli::try_parse_from(&arguments).unwrap_err();
        let mut root = Cli::command();
        root.build();
        one_line(&error, &root, &arguments)
    }

    #[test]
    fn unknown_word_is_named_with_the_nearest_known_one() {
        for (line, expected) in [
            ("proxymatic servic", "proxymatic has no object servic: the nearest is service; see `proxymatic --help`"),
            (
                "proxymatic --bpffs /x flwo",
                "proxymatic has no object flwo: the nearest is flow; see `proxymatic --help`",
            ),
            (
                "proxymatic service shwo",
                "proxymatic service has no verb shwo: the nearest is show; see `proxymatic service --help`",
            ),
            (
                "proxymatic -j backend darin 10.0.0.1:80",
                "proxymatic backend has no verb darin: the nearest is drain; see `proxymatic backend --help`",
            ),
            (
                "proxymatic flow show --servce web",
                "proxymatic flow show has no flag --servce: the nearest is --service; see `proxymatic flow show --help`",
            ),
            ("proxymatic status now", "proxymatic status takes no now; see `proxymatic status --help`"),
        ] {
            assert_eq!(message(line), expected, "{line}");
        }
    }

    #[test]
    fn every_error_is_one_line() {
        for (line, part) in [
            ("proxymatic", "missing subcommand; expected one of run, status"),
            ("proxymatic backend drain", "<ADDR:PORT>"),
            ("proxymatic backend drain web", "invalid value 'web' for '<ADDR:PORT>'"),
            ("proxymatic hook show --seconds 0", "invalid value '0' for '--seconds <N>'"),
            ("proxymatic map dump", "<NAME>"),
            ("proxymatic run --loopback x", "invalid value 'x' for '--loopback"),
        ] {
            let message = message(line);
            assert!(
                message.contains(part) && !message.contains('\n') && !message.starts_with("error"),
                "{line}: {message}"
            );
        }
    }
}
