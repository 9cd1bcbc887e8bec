//! Renders rows as a table or as JSON.

use std::{
    io::{self, Write},
    net::SocketAddr,
};

use serde::Serialize;

use super::{
    BackendRow, RestoredFrom, SelfTestStatus, ServiceRow, Status, WatchEvent, colour,
    table::{WIDTH, shorten, table, time},
};
use crate::{dataplane::kernel::HookRow, features::FeatureRow};

/// The output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A table.
    Table,
    /// JSON on one line.
    Json,
    /// Indented JSON.
    Pretty,
}

/// Rows that can be rendered as a table.
pub trait Rows: Serialize {
    /// Returns the table.
    fn table(&self) -> String;
}

/// Prints rows. It is no error if the reader closes the pipe early (`| head`).
///
/// # Errors
/// Standard output cannot be written.
pub fn print(rows: &impl Rows, format: Format) -> io::Result<()> {
    write(&mut io::stdout().lock(), &text(rows, format)?)
}

/// Returns rows as text, without the final newline of [`print()`].
///
/// # Errors
/// The rows cannot be expressed in JSON; this does not happen.
pub fn text(rows: &impl Rows, format: Format) -> io::Result<String> {
    Ok(match format {
        Format::Table => colour::paint(plain(&rows.table())),
        Format::Json => serde_json::to_string(rows)?,
        Format::Pretty => serde_json::to_string_pretty(rows)?,
    })
}

/// Prints one event on a line of its own. Returns false if the reader closed the pipe.
///
/// # Errors
/// Standard output cannot be written.
pub fn print_line(event: &WatchEvent, format: Format) -> io::Result<bool> {
    let text = match format {
        Format::Table => colour::paint(plain(&event.line())),
        Format::Json | Format::Pretty => serde_json::to_string(event)?,
    };
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true),
    }
}

/// Prints a notice for the operator on standard error.
pub fn print_notice(text: &str) {
    let _ = write(&mut io::stderr().lock(), &plain(&format!("proxymatic: {text}")));
}

/// Prints an error: a line on standard error, or JSON on standard output.
pub fn print_error(error: &str, format: Format) {
    let _ = match format {
        Format::Table => write(&mut io::stderr().lock(), &plain(&format!("proxymatic: {error}"))),
        _ => write(&mut io::stdout().lock(), &serde_json::json!({ "error": error }).to_string()),
    };
}

/// Replaces control characters, which a terminal would interpret: names, labels and task ids come from outside.
fn plain(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\n', "\u{fffd}")
}

fn write(out: &mut impl Write, text: &str) -> io::Result<()> {
    match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

impl Rows for Vec<ServiceRow> {
    fn table(&self) -> String {
        if self.is_empty() {
            return "no services".into();
        }
        let header = ["SERVICE", "PORT", "POLICY", "BACKEND", "STATE", "WEIGHT", "ACTIVE", "TOTAL"];
        let rows = self.iter().flat_map(|service| {
            let at = service.address.map_or(String::new(), |address| format!("{address}:"));
            let port = format!("{at}{}/{}", service.port, service.protocol);
            let first = [service.name.clone(), port, service.policy.into()];
            let none = vec!["-".to_owned(), "no backend".to_owned()];
            let backends = service.backends.iter().map(|backend| {
                vec![
                    format!("{}:{}", backend.address, backend.port),
                    backend.state.into(),
                    backend.weight.to_string(),
                    backend.active.to_string(),
                    backend.total.to_string(),
                ]
            });
            let cells: Vec<_> = if service.backends.is_empty() { vec![none] } else { backends.collect() };
            cells.into_iter().enumerate().map(move |(i, cells)| {
                // Only the first backend's row names the service.
                let named = if i == 0 { first.to_vec() } else { vec![String::new(); 3] };
                named.into_iter().chain(cells).collect()
            })
        });
        let reasons = reasons(self.iter().flat_map(|row| row.backends.iter().map(|it| (row.name.as_str(), it))));
        table(&header, &["WEIGHT", "ACTIVE", "TOTAL"], rows) + &reasons
    }
}

/// Returns why backends are not used yet, below a table of them.
fn reasons<'a>(backends: impl Iterator<Item = (&'a str, &'a BackendRow)>) -> String {
    let reason = |(service, it): (&str, &BackendRow)| {
        let at = SocketAddr::new(it.address, it.port);
        it.reason.as_ref().map(|reason| awaited(service, at, reason))
    };
    let lines: String = backends.filter_map(reason).collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

/// The backends of all services, one row each.
#[derive(Clone, Debug, Serialize)]
pub struct Backends(pub Vec<BackendOf>);

/// A backend and its service.
#[derive(Clone, Debug, Serialize)]
pub struct BackendOf {
    /// The name of the service.
    pub service: String,
    /// The backend.
    #[serde(flatten)]
    pub backend: BackendRow,
}

impl Rows for Backends {
    fn table(&self) -> String {
        if self.0.is_empty() {
            return "no backends".into();
        }
        let header = ["BACKEND", "SERVICE", "STATE", "ACTIVE", "TOTAL", "MAXCONN", "TASK"];
        let rows = self.0.iter().map(|BackendOf { service, backend }| {
            let maxconn = if backend.maxconn == 0 { "-".into() } else { backend.maxconn.to_string() };
            vec![
                format!("{}:{}", backend.address, backend.port),
                service.clone(),
                backend.state.into(),
                backend.active.to_string(),
                backend.total.to_string(),
                maxconn,
                shorten(&backend.task, 36),
            ]
        });
        let reasons = reasons(self.0.iter().map(|it| (it.service.as_str(), &it.backend)));
        table(&header, &["ACTIVE", "TOTAL", "MAXCONN"], rows) + &reasons
    }
}

/// The output of `backend drain` and `backend undrain`.
#[derive(Clone, Debug, Serialize)]
pub struct DrainResult {
    /// The addressed backends in their new state.
    pub backends: Vec<BackendOf>,
    /// Likely unwanted consequences.
    pub warnings: Vec<String>,
}

impl Rows for DrainResult {
    fn table(&self) -> String {
        let warnings = self.warnings.iter().map(|warning| entry("PROBLEM", warning));
        warnings.chain([Backends(self.backends.clone()).table()]).collect()
    }
}

impl Rows for Vec<FeatureRow> {
    fn table(&self) -> String {
        let rows = self.iter().map(|row| {
            let has = match row.has {
                Some(true) => "yes",
                Some(false) => "no",
                None => "unknown",
            };
            let needed = if row.needed { "yes" } else { "no" };
            let detail = [row.found.as_deref(), row.instead, row.reason.as_deref()]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join("; ");
            vec![row.feature.into(), has.into(), needed.into(), if detail.is_empty() { "-".into() } else { detail }]
        });
        table(&["FEATURE", "HAS", "NEEDED", "DETAIL"], &[], rows)
    }
}

impl Rows for Vec<HookRow> {
    fn table(&self) -> String {
        if self.is_empty() {
            return "no hooks".into();
        }
        let header = ["HOOK", "PROGRAM", "LINK", "EFFECTIVE", "RUNS", "MEAN_NS", "PIN"];
        let rows = self.iter().map(|row| {
            let mean = row.mean_ns.map_or("-".into(), |mean| format!("{mean:.0}"));
            let effective = row.effective.map_or("-", |effective| if effective { "yes" } else { "NO" });
            vec![
                row.name().into_owned(),
                row.program.to_string(),
                row.link.map_or("-".into(), |link| link.to_string()),
                effective.into(),
                row.runs.to_string(),
                mean,
                row.pin.clone().unwrap_or_else(|| "-".into()),
            ]
        });
        table(&header, &["PROGRAM", "LINK", "RUNS", "MEAN_NS"], rows)
    }
}

/// The output of `detach`.
#[derive(Clone, Debug, Serialize)]
pub struct DetachResult {
    /// The removed pins and filters.
    pub removed: Vec<String>,
}

impl Rows for DetachResult {
    fn table(&self) -> String {
        self.removed.iter().map(|path| format!("removed {path}\n")).collect()
    }
}

/// The output of `healthcheck`.
#[derive(Clone, Debug, Serialize)]
pub struct HealthcheckResult {
    /// The state of the agent, as in its status; `None` if no agent answers.
    pub state: Option<String>,
}

impl Rows for HealthcheckResult {
    fn table(&self) -> String {
        self.state.as_ref().map_or("no agent answers\n".into(), |state| format!("{state}\n"))
    }
}

/// Formats a name and its value, wrapped to the width of a table.
pub(super) fn entry(name: &str, value: &str) -> String {
    const NAME: usize = 11;
    let (mut text, mut at) = (format!("{name:<NAME$}"), NAME);
    for (i, word) in value.split(' ').enumerate() {
        let length = word.chars().count();
        if i > 0 && at + 1 + length > WIDTH {
            text += &format!("\n{:NAME$}", "");
            at = NAME;
        } else if i > 0 {
            text.push(' ');
            at += 1;
        }
        text += word;
        at += length;
    }
    text.replace(GLUE, " ") + "\n"
}

/// Formats a new backend that is not used yet.
pub(super) fn awaited(service: &str, backend: SocketAddr, reason: &str) -> String {
    entry("warming", &format!("{service}: {backend} is {reason}"))
}

/// Joins words of an entry that must stay on one line.
const GLUE: &str = "\u{a0}";

impl Rows for Status {
    fn table(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| text += &entry(name, &value);
        if self.problems.is_empty() {
            line("OK", "no problems".into());
        }
        for problem in &self.problems {
            line("PROBLEM", problem.clone());
        }
        line("hooks", self.hooks.join(", "));
        match &self.agent {
            Some(agent) => line("agent", format!("{}, process {}", agent.state, agent.pid)),
            None => line("agent", "none".into()),
        }
        for source in self.agent.iter().flat_map(|agent| &agent.sources) {
            let silent = |from: &RestoredFrom| format!("restored from {}, {}", from.path, from.age());
            let silent = source.restored.as_ref().map_or_else(|| "has not answered yet".into(), silent);
            let fresh = source.answered_s.map_or(silent, |age| format!("answered {age:.0} s ago"));
            line("source", format!("{}: {fresh}", source.source));
        }
        if let Some(agent) = &self.agent {
            line("self-test", self_test(&agent.self_test));
        }
        let states = self.backends.iter().map(|(state, n)| format!("{n} {state}")).collect::<Vec<_>>().join(", ");
        let states = if states.is_empty() { "none".into() } else { states };
        line("services", format!("{}; backends: {states}", self.services));
        for warning in &self.warnings {
            line("warning", format!("{}: {}", warning.app, warning.reason));
        }
        for it in self.agent.iter().flat_map(|agent| &agent.awaited) {
            text += &awaited(&it.service, it.backend, &it.reason);
        }
        let mut line = |name: &str, value: String| text += &entry(name, &value);
        for out in &self.ejected {
            let times = if out.times == 1 { "once".into() } else { format!("{} times in a row", out.times) };
            let since = out.out_s.map_or(String::new(), |out| format!(", out for {}", time(out)));
            line("ejected", format!("{}: {} {times}{since}", out.service, out.backend));
        }
        for backend in &self.drained {
            line("drained", format!("{backend} by the operator, until `proxymatic backend undrain {backend}`"));
        }
        let fill =
            self.maps.iter().map(|fill| format!("{}{GLUE}{}{GLUE}of{GLUE}{}", fill.map, fill.used, fill.entries));
        line("maps", fill.collect::<Vec<_>>().join(", "));
        let verdicts = self.verdicts.iter().filter(|(_, n)| **n > 0).map(|(name, n)| format!("{name}{GLUE}{n}"));
        let verdicts = verdicts.collect::<Vec<_>>().join(", ");
        line("verdicts", if verdicts.is_empty() { "none".into() } else { verdicts });
        let agent = self.agent.as_ref().map_or(String::new(), |agent| format!("agent {}, ", agent.version));
        line("versions", format!("{agent}data plane {}, this command {}", self.abi, self.version));
        text
    }
}

fn self_test(test: &SelfTestStatus) -> String {
    match (&test.impossible, test.every_s, test.succeeded_s) {
        (Some(reason), ..) => format!("not possible: {reason}"),
        (None, 0, _) => "switched off (--self-test 0)".into(),
        (None, _, Some(age)) => format!("succeeded {age:.0} s ago"),
        (None, ..) => "none has succeeded yet".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surface::{AwaitedBackend, RoundTrips, ServiceCounts, WARMING, add_reasons};

    fn service() -> ServiceRow {
        let backend = |last: u8, total| BackendRow {
            address: [10, 0, 0, last].into(),
            port: 31_000,
            weight: 500,
            maxconn: 0,
            state: "active",
            active: 1,
            total,
            failed: 0,
            task: "web.instance-1._app.1".into(),
            reason: None,
            established: 9,
            rtt_us: 250,
            rtts: RoundTrips::default(),
        };
        ServiceRow {
            name: "/shop/web".into(),
            protocol: "tcp",
            address: None,
            port: 1234,
            source: "marathon",
            policy: "leastconn",
            backends: vec![backend(1, 7), backend(2, 1200)],
            counts: ServiceCounts::default(),
        }
    }

    #[test]
    fn control_characters_in_a_name_are_replaced() {
        let hostile = ServiceRow { name: "/a\u{1b}[2J\u{9b}31m\rb".into(), ..service() };
        let text = text(&vec![hostile], Format::Table).unwrap();
        assert!(text.contains("/a\u{fffd}[2J\u{fffd}31m\u{fffd}b"), "{text:?}");
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    }

    #[test]
    fn new_backend_has_its_reason_below_the_table() {
        let mut rows = vec![service()];
        rows[0].backends[1].state = WARMING;
        let awaited = AwaitedBackend {
            service: "/shop/web".into(),
            backend: ([10, 0, 0, 2], 31_000).into(),
            task: "web.instance-1._app.1".into(),
            reason: "new, without a check, and refused the first probe".into(),
        };
        add_reasons(&mut rows, &[awaited]);
        let line = "\n\nwarming    /shop/web: 10.0.0.2:31000 is new, without a check, and refused the first probe\n";
        assert!(rows.table().ends_with(&line[1..]) && rows.table().contains(line), "{}", rows.table());
        let json = text(&rows, Format::Json).unwrap();
        assert_eq!(json.matches("\"reason\":\"new, without a check").count(), 1, "{json}");
    }

    #[test]
    fn services_are_shown_as_table() {
        let empty = ServiceRow { name: "/idle".into(), port: 80, backends: vec![], ..service() };
        expect_test::expect![[r#"
            SERVICE    PORT      POLICY     BACKEND         STATE       WEIGHT  ACTIVE  TOTAL
            /shop/web  1234/tcp  leastconn  10.0.0.1:31000  active         500       1      7
                                            10.0.0.2:31000  active         500       1   1200
            /idle      80/tcp    leastconn  -               no backend
        "#]]
        .assert_eq(&vec![service(), empty].table());
    }

    #[test]
    fn services_are_shown_as_json() {
        expect_test::expect![[
            r#"[{"name":"/shop/web","protocol":"tcp","address":null,"port":1234,"source":"marathon","policy":"leastconn","backends":[{"address":"10.0.0.1","port":31000,"weight":500,"maxconn":0,"state":"active","active":1,"total":7,"failed":0,"task":"web.instance-1._app.1"},{"address":"10.0.0.2","port":31000,"weight":500,"maxconn":0,"state":"active","active":1,"total":1200,"failed":0,"task":"web.instance-1._app.1"}]}]"#
        ]]
        .assert_eq(&serde_json::to_string(&vec![service()]).unwrap());
    }
}
