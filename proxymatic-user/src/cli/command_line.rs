//! The definition of the command line: objects, verbs and global flags.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap_complete::Shell;

use super::{args::PinArgs, backend, config, event, feature, flow, hook, map, plan, service};

/// Service forwarding for Marathon clusters, done in the Linux kernel.
///
/// Programs connect to localhost:<service port>; the kernel sends each connection directly to a healthy replica.
#[expect(rustdoc::invalid_html_tags, reason = "it is a help text as well, in which <...> stands for a number")]
#[derive(Debug, clap::Parser)]
#[command(name = "proxymatic", version, max_term_width = 100, subcommand_required = true)]
pub(super) struct Cli {
    /// Print JSON.
    #[arg(short = 'j', long, global = true)]
    pub(super) json: bool,
    /// Print indented JSON.
    #[arg(short = 'p', long, global = true)]
    pub(super) pretty: bool,
    #[command(flatten)]
    pub(super) pins: PinArgs,
    #[command(subcommand)]
    pub(super) object: Object,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Object {
    /// Run the agent.
    Run(Box<config::Args>),
    /// The status on one screen: problems first. Exit code 1 if there are any.
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
    /// The hooks in the kernel, and their cost.
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
    /// Events as they happen.
    #[command(args_conflicts_with_subcommands = true)]
    Event {
        #[command(flatten)]
        bare: event::Args,
        #[command(subcommand)]
        verb: Option<event::Verb>,
    },
    /// The pinned maps and their entries.
    #[command(args_conflicts_with_subcommands = true)]
    Map {
        #[command(subcommand)]
        verb: Option<map::Verb>,
    },
    /// The writes that the agent would make, without making them.
    #[command(args_conflicts_with_subcommands = true)]
    Plan {
        #[command(flatten)]
        bare: Box<plan::Args>,
        #[command(subcommand)]
        verb: Option<plan::Verb>,
    },
    /// The features of this kernel, and the fallbacks for missing ones. Needs root.
    #[command(args_conflicts_with_subcommands = true)]
    Feature {
        #[command(subcommand)]
        verb: Option<feature::Verb>,
    },
    /// The helper process of the agent's self-test; internal.
    #[command(hide = true)]
    SelfTest,
    /// Whether the agent answers, regardless of its sources: for its supervisor. Exit code 1 if it does not.
    Healthcheck,
    /// A live screen of services: rate, active, failed, round trip time.
    Top,
    /// Remove everything that is pinned: the kernel no longer forwards anything.
    Detach,
    /// Print the completion script of a shell.
    Completions {
        /// The shell.
        #[arg(value_parser = PossibleValuesParser::new(["bash", "zsh", "fish"]).try_map(|name| name.parse::<Shell>()))]
        shell: Shell,
    },
    /// Write man pages into a folder.
    #[command(hide = true)]
    Manual {
        /// The folder.
        folder: PathBuf,
    },
}
