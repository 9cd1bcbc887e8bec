//! The command line: `proxymatic [-j|-p] OBJECT [VERB]`. A bare object means `show`.

mod args;
mod backend;
mod command_line;
mod config;
mod detach;
mod endpoint;
#[cfg(test)]
mod env_example;
mod event;
mod feature;
mod flow;
mod forward;
mod hardening;
mod healthcheck;
mod hook;
mod legacy_flags;
mod manpages;
mod map;
mod outcome;
pub mod parse_check;
mod plan;
mod remote;
mod run;
mod service;
mod sources;
mod state;
mod status;
mod top;
mod usage;

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory as _, Parser as _};

use self::{
    args::PinArgs,
    command_line::{Cli, Object},
    outcome::Outcome,
};
use crate::surface::{self, Format};

/// Runs a command line. Exit code 0: no problem; 1: a problem was found; 2: a check failed or the usage was wrong.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<_> = arguments.collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return warn(&error, &arguments),
    };
    let format = match (cli.json, cli.pretty) {
        (_, true) => Format::Pretty,
        (true, false) => Format::Json,
        (false, false) => Format::Table,
    };
    match execute(cli, format) {
        Ok(Outcome::Ok) => ExitCode::SUCCESS,
        Ok(Outcome::Problems) => ExitCode::from(1),
        Ok(Outcome::CannotTell) => ExitCode::from(2),
        Err(error) => {
            surface::print_error(&format!("{error:#}"), format);
            ExitCode::from(2)
        }
    }
}

fn execute(cli: Cli, format: Format) -> anyhow::Result<Outcome> {
    match cli.object {
        Object::Run(args) => run::run(*args, &cli.pins),
        Object::Status => status::run(&cli.pins, format),
        Object::Service { verb } => service::run(verb.unwrap_or_default(), &cli.pins, format),
        Object::Backend { verb } => backend::run(verb.unwrap_or_default(), &cli.pins, format),
        Object::Hook { verb } => hook::run(verb.unwrap_or_default(), &cli.pins, format),
        Object::Flow { bare, verb } => {
            let flow::Verb::Show(args) = verb.unwrap_or(flow::Verb::Show(bare));
            flow::run(&args, &cli.pins, format)
        }
        Object::Event { bare, verb } => {
            let event::Verb::Watch(args) = verb.unwrap_or(event::Verb::Watch(bare));
            event::run(&args, &cli.pins, format)
        }
        Object::Map { verb } => map::run(&verb.unwrap_or_default(), &cli.pins, format),
        Object::Plan { bare, verb } => {
            let plan::Verb::Show(args) = verb.unwrap_or(plan::Verb::Show(bare));
            plan::run(&args, &cli.pins, format)
        }
        Object::Feature { verb } => feature::run(verb.unwrap_or_default(), format),
        Object::SelfTest => hardening::self_test(),
        Object::Healthcheck => healthcheck::run(&cli.pins, format),
        Object::Top => top::run(&cli.pins),
        Object::Detach => detach::run(&cli.pins, format),
        Object::Completions { shell } => manpages::completions(shell),
        Object::Manual { folder } => manpages::manual(&folder),
    }
}

/// Returns the format for errors about a command line that does not parse.
fn format_of(arguments: &[OsString]) -> Format {
    let json = ["-j", "--json", "-p", "--pretty", "-jp", "-pj"];
    if arguments.iter().any(|argument| json.iter().any(|flag| argument == flag)) { Format::Json } else { Format::Table }
}

fn warn(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    if !error.use_stderr() {
        // Help or the version, as requested. If even printing fails there is nothing left to do.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let mut root = Cli::command();
    root.build();
    surface::print_error(&usage::one_line(error, &root, arguments), format_of(arguments));
    ExitCode::from(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bare_object_means_show_and_list_too() {
        for line in [
            "proxymatic service",
            "proxymatic service show",
            "proxymatic -j service list",
            "proxymatic service show web",
            "proxymatic plan --file x.toml",
            "proxymatic -j plan show --marathon http://h:8080 --registrator etcd://h/services --wait 3",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
        for line in ["proxymatic", "proxymatic servic", "proxymatic service delete", "proxymatic hook show --seconds x"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn global_flags_may_stand_before_or_after_the_object() {
        for line in ["proxymatic --bpffs /x -p status", "proxymatic status -p --bpffs /x"] {
            let cli = parse(line).unwrap();
            assert!(cli.pretty && cli.pins.bpffs.as_os_str() == "/x", "{line}");
        }
    }
}
