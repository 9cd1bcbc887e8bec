//! Parses and checks a command line without running it and without opening the files that it names. The fuzz target for
//! command lines uses this.

use std::ffi::OsString;

use clap::Parser as _;

use super::{Cli, Object, config, plan, sources, usage};

/// The result of parsing and checking a command line.
#[derive(Debug)]
pub enum ParseCheck {
    /// Valid: the command would run.
    Valid,
    /// Asks for help or for the version: exit code 0.
    Help,
    /// Does not parse.
    Usage {
        /// The exit code.
        code: i32,
        /// The printed text.
        text: String,
    },
    /// Parses, but has invalid values: a sentence for each, exit code 2.
    Invalid(Vec<String>),
}

/// Parses and checks a command line; the first word is the name of the program.
pub fn check(arguments: &[OsString]) -> ParseCheck {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => return ParseCheck::Help,
        Err(error) => return ParseCheck::Usage { code: error.exit_code(), text: error.to_string() },
    };
    let checked = match cli.object {
        Object::Run(mut args) => {
            args.sources.remove_files();
            config::check(&args, &cli.pins).map(drop)
        }
        Object::Plan { bare, verb } => {
            let plan::Verb::Show(mut args) = verb.unwrap_or(plan::Verb::Show(bare));
            args.sources.remove_files();
            let mut wrong = Vec::new();
            sources::check(&args.sources, &mut wrong);
            args.settings.check(&mut wrong);
            if wrong.is_empty() { Ok(()) } else { Err(wrong) }
        }
        _ => Ok(()),
    };
    checked.map_or_else(|wrong| ParseCheck::Invalid(usage::lines(wrong)), |()| ParseCheck::Valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(line: &str) -> ParseCheck {
        check(&line.split_whitespace().map(Into::into).collect::<Vec<_>>())
    }

    #[test]
    fn command_line_is_checked_without_opening_files() {
        let fine = "proxymatic run --marathon http://h --marathon-credentials-file /absent --marathon-ca-cert /absent";
        assert!(matches!(checked(fine), ParseCheck::Valid), "{:?}", checked(fine));
        assert!(matches!(checked("proxymatic run --help"), ParseCheck::Help));
        assert!(matches!(checked("proxymatic rum"), ParseCheck::Usage { code: 2, .. }));
        assert!(
            matches!(checked("proxymatic plan --group-size 0 --file x.toml"), ParseCheck::Invalid(errors) if errors.len() == 1)
        );
    }

    #[test]
    fn newline_in_an_argument_is_escaped() {
        let typed = ["proxymatic", "plan", "--file", "x.toml", "--exclude-cgroup", "a\nb"].map(Into::into);
        let ParseCheck::Invalid(errors) = check(&typed) else { panic!("{typed:?} is well") };
        assert!(errors[0].starts_with(r"--exclude-cgroup a\nb: must be"), "{errors:?}");
    }
}
