//! The variables of `run`, as `deploy/env.example` lists them. A test generates that file from the definitions of the
//! command line, so that both always agree.

use std::fmt::Write as _;

use clap::{Arg, CommandFactory as _};
use expect_test::expect_file;

use super::Cli;

const HEAD: &str = "\
# The variables of `proxymatic run`, each with its meaning, its flag and its default. For systemd (EnvironmentFile=), for
# Docker (--env-file) and for docker-compose (env_file:), none of which allows quotes or spaces around `=`. A line that
# begins with # is a comment.
#
# At least one source is needed: MARATHON_URL, REGISTRATOR_URL or FILE. A flag overrides its variable.
";

#[test]
fn env_example_lists_every_variable_with_its_default() {
    expect_file!["../../../deploy/env.example"].assert_eq(&example());
}

/// Returns the arguments of `run` that have a variable and appear in the help.
fn arguments() -> Vec<Arg> {
    let mut root = Cli::command();
    root.build();
    let run = root.find_subcommand("run").expect("there is a run");
    run.get_arguments().filter(|it| it.get_env().is_some() && !it.is_hide_set()).cloned().collect()
}

fn example() -> String {
    let mut text = HEAD.to_owned();
    for argument in arguments() {
        let variable = argument.get_env().expect("has a variable").to_string_lossy();
        let help = argument.get_help().expect("has help").to_string();
        let flag = argument.get_long().expect("has a flag");
        let takes = argument.get_action().takes_values();
        let values: Vec<_> = argument.get_possible_values().iter().map(|it| it.get_name().to_owned()).collect();
        let value = match argument.get_value_names() {
            _ if !takes => String::new(),
            _ if !values.is_empty() => format!(" {}", values.join("|")),
            names => format!(" {}", names.unwrap_or_default().join(" ")),
        };
        let default: Vec<_> = argument.get_default_values().iter().map(|it| it.to_string_lossy()).collect();
        let default = if takes { default.join(",") } else { "false".to_owned() };
        let default = if variable == "MARATHON_URL" { "http://marathon.example:8080".to_owned() } else { default };
        let _ = write!(text, "\n{}# --{flag}{value}\n#{variable}={default}\n", comment(&format!("{help}.")));
    }
    text
}

/// Returns the text as comment lines of at most 120 characters.
fn comment(text: &str) -> String {
    let mut lines = vec![String::from("#")];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("has one");
        if last.len() + 1 + word.len() > 120 {
            lines.push(format!("# {word}"));
        } else {
            last.push(' ');
            last.push_str(word);
        }
    }
    lines.join("\n") + "\n"
}
