//! A command line as far as it goes without doing anything: read and checked, while no file that it names is opened. What
//! is fuzzed of the command line.

use std::ffi::OsString;

use clap::Parser as _;

use super::{Cli, Object, config, plan, sources, usage};

/// What a command line comes to.
#[derive(Debug)]
pub enum ParseCheck {
    /// It would be carried out.
    Fine,
    /// It asks for help or for the version: exit code 0.
    Told,
    /// It cannot be read.
    Usage {
        /// The exit code.
        code: i32,
        /// What is printed.
        said: String,
    },
    /// It says what cannot be: a sentence each, exit code 2.
    Wrong(Vec<String>),
}

/// Reads and checks a command line; its first word is the name of the program.
pub fn judge(arguments: &[OsString]) -> ParseCheck {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => return ParseCheck::Told,
        Err(error) => return ParseCheck::Usage { code: error.exit_code(), said: error.to_string() },
    };
    let checked = match cli.object {
        Object::Run(mut args) => {
            args.sources.leave_files();
            config::check(&args, &cli.pins).map(drop)
        }
        Object::Plan { bare, verb } => {
            let plan::Verb::Show(mut args) = verb.unwrap_or(plan::Verb::Show(bare));
            args.sources.leave_files();
            let mut wrong = Vec::new();
            sources::check(&args.sources, &mut wrong);
            args.wishes.check(&mut wrong);
            if wrong.is_empty() { Ok(()) } else { Err(wrong) }
        }
        _ => Ok(()),
    };
    checked.map_or_else(|wrong| ParseCheck::Wrong(usage::lines(wrong)), |()| ParseCheck::Fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(line: &str) -> ParseCheck {
        judge(&line.split_whitespace().map(Into::into).collect::<Vec<_>>())
    }

    #[test]
    fn a_command_line_is_judged_without_opening_what_it_names() {
        let fine = "proxymatic run --marathon http://h --marathon-credentials-file /absent --marathon-ca-cert /absent";
        assert!(matches!(judged(fine), ParseCheck::Fine), "{:?}", judged(fine));
        assert!(matches!(judged("proxymatic run --help"), ParseCheck::Told));
        assert!(matches!(judged("proxymatic rum"), ParseCheck::Usage { code: 2, .. }));
        assert!(
            matches!(judged("proxymatic plan --group-size 0 --file x.toml"), ParseCheck::Wrong(said) if said.len() == 1)
        );
    }

    #[test]
    fn a_newline_that_was_typed_is_shown() {
        let typed = ["proxymatic", "plan", "--file", "x.toml", "--exclude-cgroup", "a\nb"].map(Into::into);
        let ParseCheck::Wrong(said) = judge(&typed) else { panic!("{typed:?} is well") };
        assert!(said[0].starts_with(r"--exclude-cgroup a\nb: must be"), "{said:?}");
    }
}
