//! Builds test programs and lists the tests in each of them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow};

use crate::{command, workspace};

/// A test program that cargo built.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Program {
    /// Its path.
    pub(crate) path: PathBuf,
    /// The folder of its package, in which cargo runs its tests.
    pub(crate) folder: PathBuf,
    /// The name of its target.
    pub(crate) target: String,
    /// The kind of the target.
    pub(crate) kind: Kind,
}

/// The kind of a target of cargo.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// A library or a binary, with the tests inside its own modules.
    Unit,
    /// A folder or file of tests beside the library or binary.
    Integration,
}

impl Program {
    /// The folder of its package, from the root of the checkout.
    pub(crate) fn package(&self) -> &str {
        self.folder.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }
}

/// One test of one program.
#[derive(Clone, Debug)]
pub(crate) struct Test {
    pub(crate) program: Program,
    /// Its path inside the program, as `--exact` takes it.
    pub(crate) path: String,
    /// Its name in this run: the path, after the name of the program if the tier has several.
    pub(crate) name: String,
}

/// Which tests of a program to run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Ignored {
    /// Without tests marked `#[ignore]`: another tier or another test starts them.
    Skip,
    /// With them: the tier meets their requirements.
    Include,
}

/// Builds the tests that `cargo test ARGUMENTS` would run and returns the programs.
///
/// # Errors
/// [`command::Failed`] if they do not compile.
pub(crate) fn build(arguments: &[&str]) -> Result<Vec<Program>> {
    let mut build = workspace::cargo();
    build.args(["test", "--no-run", "--message-format=json-render-diagnostics"]).args(arguments);
    Ok(read_messages(&command::read(&mut build)?))
}

/// Returns the test programs in cargo's messages.
fn read_messages(messages: &str) -> Vec<Program> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let program = |message: serde_json::Value| {
        // `cargo test` also builds the binaries that integration tests may start; those are no tests.
        message["profile"]["test"].as_bool().filter(|is_test| *is_test)?;
        Some(Program {
            path: message["executable"].as_str()?.into(),
            folder: Path::new(message["manifest_path"].as_str()?).parent()?.to_path_buf(),
            target: message["target"]["name"].as_str()?.to_owned(),
            kind: if message["target"]["kind"][0] == "test" { Kind::Integration } else { Kind::Unit },
        })
    };
    messages.filter_map(program).collect()
}

/// Returns the tests of the programs whose names contain `filter`, in the order of the programs.
///
/// # Errors
/// A program does not list its tests.
pub(crate) fn list(programs: &[Program], filter: Option<&str>, ignored: Ignored) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for program in programs {
        let left_out = if ignored == Ignored::Skip { paths(program, &["--ignored"])? } else { Vec::new() };
        let paths = paths(program, &[])?.into_iter().filter(|path| !left_out.contains(path));
        let is_one_of_several = programs.len() > 1;
        tests.extend(paths.map(|path| {
            let name = if is_one_of_several { format!("{}::{path}", program.target) } else { path.clone() };
            Test { program: program.clone(), path, name }
        }));
    }
    tests.retain(|test| filter.is_none_or(|filter| test.name.contains(filter)));
    Ok(tests)
}

fn paths(program: &Program, more: &[&str]) -> Result<Vec<String>> {
    let mut list = Command::new(&program.path);
    list.args(["--list", "--format", "terse"]).args(more).current_dir(&program.folder);
    let printed = command::read(&mut list)
        .map_err(|error| anyhow!("{error:#}"))
        .with_context(|| format!("cannot list the tests of {}", program.path.display()))?;
    Ok(printed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_messages_yield_only_test_programs() {
        let messages = r#"{"reason":"compiler-artifact","manifest_path":"/w/user/Cargo.toml","target":{"name":"plan","kind":["test"]},"profile":{"test":true},"executable":"/t/plan-1"}
{"reason":"compiler-artifact","manifest_path":"/w/user/Cargo.toml","target":{"name":"proxymatic","kind":["bin"]},"profile":{"test":false},"executable":"/t/proxymatic"}
{"reason":"compiler-artifact","manifest_path":"/w/common/Cargo.toml","target":{"name":"common","kind":["lib"]},"profile":{"test":true},"executable":null}
{"reason":"build-finished","success":true}"#;
        let program = Program {
            path: "/t/plan-1".into(),
            folder: "/w/user".into(),
            target: "plan".into(),
            kind: Kind::Integration,
        };
        assert_eq!(program.package(), "user");
        assert_eq!(read_messages(messages), [program]);
    }

    #[test]
    fn ignored_tests_are_listed_only_when_included() {
        // The program of this test: it has no ignored tests, and the name of this one is known.
        let program = Program {
            path: std::env::current_exe().unwrap(),
            folder: workspace::root().to_path_buf(),
            target: "xtask".into(),
            kind: Kind::Unit,
        };
        let found = |ignored| list(std::slice::from_ref(&program), Some("ignored_tests_are_listed"), ignored).unwrap();
        assert_eq!(found(Ignored::Skip).len(), 1);
        assert_eq!(
            found(Ignored::Include)[0].name,
            "test::programs::tests::ignored_tests_are_listed_only_when_included"
        );
        assert!(list(&[program], Some("no such test"), Ignored::Skip).unwrap().is_empty());
    }
}
