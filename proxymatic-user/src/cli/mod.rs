//! The command line: `proxymatic [-j|-p] OBJECT [VERB]`. A bare object means `show`.

mod backend;
mod config;
mod detach;
mod endpoint;
#[cfg(test)]
mod env_example;
mod event;
mod feature;
mod flow;
mod hardening;
mod healthcheck;
mod hook;
mod legacy_flags;
mod manpages;
mod map;
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

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};

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

impl PinArgs {
    /// Where it is kept which ports the agent has reserved.
    fn reserved(&self) -> PathBuf {
        self.socket.with_extension("reserved-ports")
    }
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
    /// Live translated sockets.
    #[command(args_conflicts_with_subcommands = true)]
    Flow {
        #[command(flatten)]
        bare: flow::Args,
        #[command(subcommand)]
        verb: Option<flow::Verb>,
    },
    /// What happens, as it happens.
    #[command(args_conflicts_with_subcommands = true)]
    Event {
        #[command(flatten)]
        bare: event::Args,
        #[command(subcommand)]
        verb: Option<event::Verb>,
    },
    /// The pinned maps, and what is in them.
    #[command(args_conflicts_with_subcommands = true)]
    Map {
        #[command(subcommand)]
        verb: Option<map::Verb>,
    },
    /// What the agent would change, changing nothing.
    #[command(args_conflicts_with_subcommands = true)]
    Plan {
        #[command(flatten)]
        bare: Box<plan::Args>,
        #[command(subcommand)]
        verb: Option<plan::Verb>,
    },
    /// What this kernel has, and what is used instead. Needs root.
    #[command(args_conflicts_with_subcommands = true)]
    Feature {
        #[command(subcommand)]
        verb: Option<feature::Verb>,
    },
    /// What the agent runs to test itself: not for people.
    #[command(hide = true)]
    SelfTest,
    /// Whether the agent answers, whatever its sources do: for who supervises it. Exit code 1 where it does not.
    Healthcheck,
    /// A live screen of services: rate, active, failed, round trip time.
    Top,
    /// Remove everything that is pinned: the kernel forwards nothing any more.
    Detach,
    /// Print the completions of a shell.
    Completions {
        /// Whose: bash, zsh, fish, elvish or powershell.
        shell: clap_complete::Shell,
    },
    /// Write man pages into a folder.
    #[command(hide = true)]
    Manual {
        /// The folder.
        folder: PathBuf,
    },
}

/// Whether what was asked for is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Well,
    Unwell,
    /// It could not be told.
    Unknown,
}

/// Runs a command line. 0 well, 1 found something unwell, 2 could not tell or was used wrongly.
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
        Ok(Health::Well) => ExitCode::SUCCESS,
        Ok(Health::Unwell) => ExitCode::from(1),
        Ok(Health::Unknown) => ExitCode::from(2),
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

/// The format that was asked for on a command line that cannot be read.
fn format_of(arguments: &[OsString]) -> Format {
    let json = ["-j", "--json", "-p", "--pretty", "-jp", "-pj"];
    if arguments.iter().any(|argument| json.iter().any(|flag| argument == flag)) { Format::Json } else { Format::Table }
}

fn warn(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    if !error.use_stderr() {
        // Help that was asked for. Nothing is left to do where even this cannot be printed.
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
