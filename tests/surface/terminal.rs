//! `top` in a real terminal.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, binary};
use serde_json::{Value, json};

use crate::{checkout, serve};

/// A terminal on host 1, with a shell in it.
struct Terminal<'lab> {
    lab: &'lab Lab,
    socket: String,
}

impl<'lab> Terminal<'lab> {
    fn start(lab: &'lab Lab) -> Result<Self> {
        let socket = lab.run_dir().join("tmux.sock").display().to_string();
        let terminal = Self { lab, socket };
        // A shell with the same prompt everywhere, and the most common terminal type.
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "24", "env PS1='ready> ' sh"])?;
        terminal.shows("ready>")?;
        Ok(terminal)
    }

    fn tmux(&self, arguments: &[&str]) -> Result<String> {
        let arguments = [&["-u", "-S", &self.socket], arguments].concat();
        Ok(self.lab.host(1).run(Path::new("tmux"), &arguments, PATIENCE)?.well()?.stdout)
    }

    /// Returns the text on the screen.
    fn screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    fn press(&self, key: &str) -> Result<()> {
        self.tmux(&["send-keys", key]).map(drop)
    }

    /// Makes the shell run a line.
    fn enter(&self, line: &str) -> Result<()> {
        self.tmux(&["send-keys", "-l", line])?;
        self.press("Enter")
    }

    /// Waits until these words are on the screen, and returns the whole text.
    fn shows(&self, words: &str) -> Result<String> {
        eventually_ok(&format!("the screen shows {words:?}"), PATIENCE, || {
            let screen = self.screen()?;
            ensure!(screen.contains(words), "{screen}");
            Ok(screen)
        })
    }

    /// Whether a program uses the alternate screen, and whether the cursor is visible.
    fn taken(&self) -> Result<(bool, bool)> {
        let flags = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"])?;
        let (whole, cursor) = flags.trim().split_once(' ').with_context(|| flags.clone())?;
        Ok((whole == "1", cursor == "1"))
    }

    /// Waits until the screen is taken or given back: the words on it may come before the last escape sequence.
    fn becomes_taken(&self, wanted: (bool, bool)) -> Result<()> {
        eventually_ok("a program takes the screen and the cursor, or gives both back", PATIENCE, || {
            let taken = self.taken()?;
            ensure!(taken == wanted, "{taken:?}");
            Ok(())
        })
    }

    fn top(&self) -> Result<()> {
        let host = self.lab.host(1);
        let (program, pins) = (binary("proxymatic")?, host.pins());
        self.enter(&format!("clear; '{}' --bpffs '{}' top; echo left with $?", program.display(), pins.display()))?;
        self.shows("proxymatic top: 4 services")?;
        self.becomes_taken((true, false))
    }

    /// Sends SIGTERM to the program that the shell runs.
    fn end_top(&self) -> Result<()> {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"])?;
        let shell = shell.trim();
        let child = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"))?;
        let child = child.trim().parse().with_context(|| format!("one child: {child:?}"))?;
        Ok(kill(Pid::from_raw(child), Signal::SIGTERM)?)
    }

    /// Asserts that the shell has its terminal again, unchanged.
    fn is_given_back(&self, code: &str) -> Result<()> {
        let screen = self.shows(&format!("left with {code}"))?;
        ensure!(!screen.contains("proxymatic top:"), "the screen of top is still there:\n{screen}");
        self.becomes_taken((false, true))?;
        self.enter("stty -a")?;
        let modes = self.shows("icanon")?;
        for mode in ["icanon", "echo", "isig", "icrnl", "opost"] {
            ensure!(modes.split_whitespace().any(|it| it == mode), "{mode} is off:\n{modes}");
        }
        Ok(())
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        // It has left its parents; the cgroup of the lab would end it too.
        let _ = self.tmux(&["kill-server"]);
    }
}

fn services(lab: &Lab) -> Value {
    let backend = |port: u16| json!({ "address": lab.host(2).address(), "port": port });
    json!([
        { "name": "/shop/web", "port": 1234, "backends": [backend(8001), backend(8002)] },
        { "name": "/shop/cart", "port": 1235, "backends": [backend(8001)] },
        { "name": "/shop/search", "port": 1236, "backends": [backend(8002), backend(8009)] },
        { "name": "/batch/report", "port": 1237, "backends": [] },
    ])
}

/// Waits until these words and these services, in this order, are on the screen.
fn sorts(terminal: &Terminal<'_>, words: &str, services: &[&str]) -> Result<()> {
    eventually_ok(&format!("{words:?} and {services:?}"), PATIENCE, || {
        let screen = terminal.screen()?;
        ensure!(screen.contains(words) && order(&screen) == services, "{screen}");
        Ok(())
    })
}

/// Returns the names of the services on a screen, from the top.
fn order(screen: &str) -> Vec<&str> {
    let rows = screen.lines().skip(2);
    rows.map_while(|line| line.split_whitespace().next().filter(|name| name.starts_with('/'))).collect()
}

#[test]
fn top_sorts_by_keys_and_restores_the_terminal() -> TestResult {
    let lab = Lab::start(2)?;
    let _a = lab.replica(2, 8001, "a")?;
    let _b = lab.replica(2, 8002, "b")?;
    let _agent = serve(&lab, &services(&lab))?;
    let loads = [("1234", "3"), ("1235", "1"), ("1236", "1")]
        .map(|(port, threads)| lab.load(&format!("http://localhost:{port}/"), &["--threads", threads, "--linger0"]));
    let terminal = Terminal::start(&lab)?;
    terminal.top()?;
    terminal.shows("r rate↓")?;
    eventually_ok("the service without connections comes last", PATIENCE, || {
        let screen = terminal.screen()?;
        ensure!(order(&screen).len() == 4 && order(&screen)[3] == "/batch/report", "{screen}");
        Ok(())
    })?;
    terminal.press("n")?;
    sorts(&terminal, "n name↓", &["/batch/report", "/shop/cart", "/shop/search", "/shop/web"])?;
    terminal.press("n")?;
    sorts(&terminal, "n name↑", &["/shop/web", "/shop/search", "/shop/cart", "/batch/report"])?;
    for key in ["Down", "Down", "Down", "Up"] {
        terminal.press(key)?;
    }
    terminal.shows("\n/shop/cart 1235/tcp")?;
    // Traffic for the sparkline and for the picture.
    terminal.press("r")?;
    terminal.press("Home")?;
    eventually_ok("there is a history", PATIENCE * 2, || {
        let screen = terminal.screen()?;
        let line = screen.lines().find(|line| line.starts_with("/shop/web")).context("no /shop/web")?;
        let blocks = line.chars().filter(|it| ('▁'..='█').contains(it)).count();
        ensure!(blocks >= 12, "{screen}");
        Ok(())
    })?;
    if std::env::var_os("UPDATE_SCREENSHOTS").is_some() {
        let screen = terminal.tmux(&["capture-pane", "-p", "-e"])?;
        fs::write(checkout()?.join("docs/top.svg"), anstyle_svg::Term::new().render_svg(screen.trim_end()))?;
    }
    terminal.tmux(&["resize-window", "-x", "64", "-y", "16"])?;
    eventually_ok("it fits a smaller terminal", PATIENCE, || {
        let screen = terminal.screen()?;
        ensure!(screen.lines().count() <= 16 && screen.contains("/shop/web 1234/tcp") && screen.contains("order: r"));
        Ok(())
    })?;
    terminal.press("q")?;
    terminal.is_given_back("0")?;

    terminal.top()?;
    terminal.press("C-c")?;
    terminal.is_given_back("0")?;

    terminal.top()?;
    terminal.end_top()?;
    terminal.is_given_back("0")?;
    for load in loads {
        load?.finish()?;
    }
    Ok(())
}
