//! The command line: `proxymatic [-j|-p] OBJECT [VERB]`. A bare object means `show`.

mod backend;
mod config;
mod detach;
mod endpoint;
mod hook;
mod plan;
mod run;
mod service;
mod sources;
mod status;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::surface::{self, Format};

/// Service forwarding for Marathon clusters, done in the Linux kernel.
///
/// Programs dial localhost:<service port>; the kernel takes each connection straight to a healthy replica.
#[derive(Debug, Parser)]
#[command(name = "proxymatic", version, max_term_width = 100, subcommand_required = true)]
struct Cli {
    /// Print JSON.
    #[arg(short = 'j', long, global = true)]
    json: bool,
    /// Print JSON for people.
    #[arg(short = 'p', long, global = true)]
    pretty: bool,
    #[command(flatten)]
    pins: PinArgs,
    #[command(subcommand)]
    object: Object,
}

/// Where the data plane and its agent are found.
#[derive(Clone, Debug, clap::Args)]
struct PinArgs {
    /// The folder of the pins, on a BPF file system.
    #[arg(long, global = true, value_name = "DIR", default_value = "/sys/fs/bpf/proxymatic", env = "BPFFS")]
    bpffs: PathBuf,
    /// Where the agent answers commands.
    #[arg(long, global = true, value_name = "PATH", default_value = "/run/proxymatic.sock", env = "AGENT_SOCKET")]
    socket: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Object {
    /// Run the agent.
    Run(Box<run::Args>),
    /// One screen: what is wrong, and how things are. Exit code 1 where something is wrong.
    Status,
    /// Services and their backends.
    #[command(args_conflicts_with_subcommands = true)]
    Service {
        #[command(subcommand)]
        verb: Option<service::Verb>,
    },
    /// Backends, one a line.
    #[command(args_conflicts_with_subcommands = true)]
    Backend {
        #[command(subcommand)]
        verb: Option<backend::Verb>,
    },
    /// The hooks in the kernel, and what they cost.
    #[command(args_conflicts_with_subcommands = true)]
    Hook {
        #[command(subcommand)]
        verb: Option<hook::Verb>,
    },
    /// What the agent would change, changing nothing.
    #[command(args_conflicts_with_subcommands = true)]
    Plan {
        #[command(flatten)]
        bare: Box<plan::Args>,
        #[command(subcommand)]
        verb: Option<plan::Verb>,
    },
    /// Remove everything that is pinned: the kernel forwards nothing any more.
    Detach,
}

/// Whether what was asked for is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Well,
    Unwell,
}

/// Runs a command line. 0 well, 1 found something unwell, 2 could not tell or was used wrongly.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<_> = arguments.collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, format_of(&arguments)),
    };
    let format = match (cli.json, cli.pretty) {
        (_, true) => Format::Pretty,
        (true, false) => Format::Json,
        (false, false) => Format::Table,
    };
    match execute(cli, format) {
        Ok(Health::Well) => ExitCode::SUCCESS,
        Ok(Health::Unwell) => ExitCode::from(1),
        Err(error) => {
            surface::print_error(&format!("{error:#}"), format);
            ExitCode::from(2)
        }
    }
}

fn execute(cli: Cli, format: Format) -> anyhow::Result<Health> {
    match cli.object {
        Object::Run(args) => run::run(*args, &cli.pins),
        Object::Status => status::run(&cli.pins, format),
        Object::Service { verb } => service::run(verb.unwrap_or_default(), &cli.pins, format),
        Object::Backend { verb } => backend::run(verb.unwrap_or_default(), &cli.pins, format),
        Object::Hook { verb } => hook::run(verb.unwrap_or_default(), &cli.pins, format),
        Object::Plan { bare, verb } => {
            let plan::Verb::Show(args) = verb.unwrap_or(plan::Verb::Show(bare));
            plan::run(&args, &cli.pins, format)
        }
        Object::Detach => detach::run(&cli.pins, format),
    }
}

/// The format that was asked for on a command line that cannot be read.
fn format_of(arguments: &[OsString]) -> Format {
    let json = ["-j", "--json", "-p", "--pretty", "-jp", "-pj"];
    if arguments.iter().any(|argument| json.iter().any(|flag| argument == flag)) { Format::Json } else { Format::Table }
}

fn usage(error: &clap::Error, format: Format) -> ExitCode {
    if format == Format::Json && error.use_stderr() {
        let text = error.to_string();
        surface::print_error(text.lines().next().unwrap_or_default().trim_start_matches("error: "), format);
    } else {
        // Nothing is left to do where even this cannot be printed.
        let _ = error.print();
    }
    if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_bare_object_shows_and_list_is_show() {
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
    fn flags_may_stand_before_or_after_the_object() {
        for line in ["proxymatic --bpffs /x -p status", "proxymatic status -p --bpffs /x"] {
            let cli = parse(line).unwrap();
            assert!(cli.pretty && cli.pins.bpffs.as_os_str() == "/x", "{line}");
        }
    }
}
