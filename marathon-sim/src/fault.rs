//! The faults: which responses are wrong on purpose, and how.

use axum::http::StatusCode;
use serde::Deserialize;

use super::error::CommandError;

/// The kind of a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// Nothing.
    None,
    /// Each response has this status and this body.
    Status(StatusCode, String),
    /// Each response is 200 with an HTML page, as from a proxy in between.
    Html,
    /// The correct response with its full length announced, but cut in half, after which the connection is closed.
    Truncate,
    /// Lists are empty.
    Empty,
    /// This percentage of each app's tasks is missing from listings.
    LoseTasks(usize),
    /// Each response is 200 and announces JSON, but is none.
    Garbage,
    /// Event streams are closed and refused with 502; everything else works.
    RefuseEvents,
    /// Event streams, open ones too, stay open and silent: no event, no heartbeat. Events meanwhile are lost to them.
    SilentEvents,
}

/// A fault and its scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The kind of the fault.
    pub kind: FaultKind,
    /// The prefix of the affected paths. `/sim` is never affected, and faults of the event stream need no path.
    pub paths: String,
    /// How many more responses it affects; `None` means all.
    pub times: Option<u32>,
}

impl Fault {
    /// Affects the whole v2 API.
    pub fn new(kind: FaultKind) -> Self {
        Self { kind, paths: "/v2".into(), times: None }
    }

    /// A status on the whole v2 API, with the body of a Marathon without a leader.
    pub fn status(code: StatusCode) -> Self {
        Self::new(FaultKind::Status(code, "Could not determine the current leader".into()))
    }

    /// Affects only paths with this prefix.
    #[must_use]
    pub fn on(self, prefix: &str) -> Self {
        Self { paths: prefix.into(), ..self }
    }

    /// Affects only this many responses.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    /// Returns the kind of fault of a request for this path, and counts the request.
    pub(super) fn meet(&mut self, path: &str) -> FaultKind {
        if (!path.starts_with(&self.paths) && self.kind != FaultKind::RefuseEvents) || self.times == Some(0) {
            return FaultKind::None;
        }
        if let Some(times) = &mut self.times {
            *times -= 1;
        }
        self.kind.clone()
    }

    /// The name of the kind in commands.
    pub fn name(&self) -> &'static str {
        match self.kind {
            FaultKind::None => "none",
            FaultKind::Status(..) => "status",
            FaultKind::Html => "html",
            FaultKind::Truncate => "truncate",
            FaultKind::Empty => "empty",
            FaultKind::LoseTasks(_) => "lose-tasks",
            FaultKind::Garbage => "garbage",
            FaultKind::RefuseEvents => "refuse-events",
            FaultKind::SilentEvents => "silent-events",
        }
    }
}

/// Parses the fault of a command.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FaultCommand {
    kind: Word,
    code: Option<u16>,
    body: Option<String>,
    paths: Option<String>,
    times: Option<u32>,
    percent: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    None,
    Status,
    Html,
    Truncate,
    Empty,
    LoseTasks,
    Garbage,
    RefuseEvents,
    SilentEvents,
}

impl TryFrom<FaultCommand> for Fault {
    type Error = CommandError;

    fn try_from(command: FaultCommand) -> Result<Self, CommandError> {
        let FaultCommand { kind, code, body, paths, times, percent } = command;
        if !matches!(kind, Word::Status) && (code.is_some() || body.is_some()) {
            return Err(CommandError::new("only the fault \"status\" takes \"code\" and \"body\""));
        }
        let mut fault = match kind {
            Word::None => Self::new(FaultKind::None),
            Word::Status => {
                let code = StatusCode::from_u16(code.unwrap_or(502)).ok().filter(|code| code.as_u16() >= 200);
                Self::status(code.ok_or_else(|| CommandError::new("\"code\" must be an HTTP status, 200 to 999"))?)
            }
            Word::Html => Self::new(FaultKind::Html),
            Word::Truncate => Self::new(FaultKind::Truncate),
            Word::Empty => Self::new(FaultKind::Empty),
            Word::LoseTasks => Self::new(FaultKind::LoseTasks(percent.unwrap_or(60).min(100))),
            Word::Garbage => Self::new(FaultKind::Garbage),
            Word::RefuseEvents => Self::new(FaultKind::RefuseEvents),
            Word::SilentEvents => Self::new(FaultKind::SilentEvents),
        };
        if let (FaultKind::Status(_, text), Some(body)) = (&mut fault.kind, body) {
            *text = body;
        }
        fault.times = times;
        Ok(match paths {
            Some(paths) => fault.on(&paths),
            None => fault,
        })
    }
}
