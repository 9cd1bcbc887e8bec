//! Runs other programs. A command is a plain value until it is run, so tests can read it.

use std::{
    convert::Infallible, ffi::OsStr, fmt, iter, os::unix::process::CommandExt as _, path::Path, process::Command,
};

use anyhow::{Context as _, Result, anyhow};

/// A program that ran and failed: exit 1. Any other error means that a task could not be done here: exit 2.
#[derive(Debug)]
pub(crate) struct Failed(pub(crate) String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Runs a command on this terminal; an exit status other than 0 is [`Failed`].
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    if status.success() {
        return Ok(());
    }
    Err(anyhow!(Failed(format!("`{}`: {status}", show(command)))))
}

/// Returns a command's stdout and passes its stderr on; an exit status other than 0 is [`Failed`].
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = command.stderr(std::process::Stdio::inherit()).output().with_context(|| cannot_start(command))?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    let status = output.status;
    Err(anyhow!(Failed(format!("`{}`: {status}", show(command)))))
}

/// Returns a command's stdout, or `None` if the command cannot be started or fails.
pub(crate) fn ask(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|it| it.status.success())?;
    String::from_utf8(output.stdout).ok()
}

/// Becomes the command, so that signals and the exit code are those of the command.
pub(crate) fn exec(command: &mut Command) -> Result<Infallible> {
    let error = command.exec();
    Err(error).with_context(|| cannot_start(command))
}

/// Returns the command as typed on a command line, without its environment.
pub(crate) fn show(command: &Command) -> String {
    let program = command.get_program();
    let name = Path::new(program).file_name().unwrap_or(program);
    let words: Vec<_> = iter::once(name).chain(command.get_args()).map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`", show(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_that_fails_differs_from_a_missing_one() {
        let no = run(&mut Command::new("false")).unwrap_err();
        assert!(no.is::<Failed>());
        let absent = run(&mut Command::new("no-such-program")).unwrap_err();
        assert!(!absent.is::<Failed>());
        assert!(absent.to_string().contains("no-such-program"));
    }

    #[test]
    fn command_that_fails_has_no_output() {
        assert_eq!(ask(Command::new("echo").arg("22")).as_deref(), Some("22\n"));
        assert_eq!(ask(&mut Command::new("false")), None);
        assert_eq!(ask(&mut Command::new("no-such-program")), None);
    }

    #[test]
    fn command_is_shown_as_typed() {
        assert_eq!(show(Command::new("ip").args(["netns", "list"])), "ip netns list");
    }
}
