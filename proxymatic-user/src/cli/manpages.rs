//! Shell completions and man pages, generated from the definitions of the command line.

use std::{fs, io::Write as _, path::Path};

use anyhow::Context as _;
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, Outcome};

/// `proxymatic completions`: prints the completion script of a shell.
pub(super) fn completions(shell: Shell) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "proxymatic", &mut script);
    std::io::stdout().lock().write_all(&script).context("cannot print")?;
    Ok(Outcome::Ok)
}

/// `proxymatic manual`: writes a page for the program and one for each object and verb into a folder, which is created
/// if it is missing.
pub(super) fn manual(folder: &Path) -> anyhow::Result<Outcome> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (name, page) in pages()? {
        let path = folder.join(format!("{name}.1"));
        fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(Outcome::Ok)
}

/// Returns the pages, by name.
fn pages() -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut pages = Vec::new();
    add(&root, "", &mut pages)?;
    Ok(pages)
}

fn add(command: &Command, before: &str, pages: &mut Vec<(String, Vec<u8>)>) -> anyhow::Result<()> {
    let name =
        if before.is_empty() { command.get_name().to_owned() } else { format!("{before}-{}", command.get_name()) };
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone())
        .title(name.clone())
        .render(&mut page)
        .with_context(|| format!("cannot make the page of {name}"))?;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        add(below, &name, pages)?;
    }
    pages.push((name, page));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Collects every object and verb, as words.
    fn all(command: &Command, before: &[String], found: &mut Vec<Vec<String>>) {
        for below in command.get_subcommands().filter(|it| !it.is_hide_set() && it.get_name() != "help") {
            let path = [before, &[below.get_name().to_owned()]].concat();
            all(below, &path, found);
            found.push(path);
        }
    }

    fn paths() -> Vec<Vec<String>> {
        let mut found = Vec::new();
        all(&Cli::command(), &[], &mut found);
        found
    }

    #[test]
    fn all_commands_of_the_design_exist() {
        let paths: Vec<String> = paths().iter().map(|path| path.join(" ")).collect();
        for wanted in [
            "run",
            "status",
            "service show",
            "backend show",
            "backend drain",
            "backend undrain",
            "flow show",
            "hook show",
            "map show",
            "map dump",
            "plan show",
            "event watch",
            "top",
            "detach",
            "completions",
        ] {
            assert!(paths.iter().any(|path| path == wanted), "{wanted} in {paths:?}");
        }
    }

    #[test]
    fn each_command_has_a_page_and_its_parent_names_it() {
        let pages = pages().unwrap();
        for path in paths() {
            let name = format!("proxymatic-{}", path.join("-"));
            let page = pages.iter().find(|(it, _)| *it == name);
            let page = String::from_utf8(page.unwrap_or_else(|| panic!("no page {name}")).1.clone()).unwrap();
            assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{name}");
            let parent = name.rsplit_once('-').unwrap().0;
            let parent = pages.iter().find(|(it, _)| it == parent).unwrap();
            let text = String::from_utf8_lossy(&parent.1).replace("\\-", "-");
            assert!(text.contains(path.last().unwrap()), "{name} in the page of its parent");
        }
    }

    #[test]
    fn completions_of_each_shell_contain_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "proxymatic", &mut script);
            let script = String::from_utf8(script).unwrap();
            for word in paths().concat() {
                assert!(script.contains(&word), "{word} in {shell}");
            }
        }
    }
}
