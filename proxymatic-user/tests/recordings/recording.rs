//! A recording of a real Marathon, cut into steps.

use std::{collections::BTreeMap, io::Read as _, path::Path};

use flate2::read::GzDecoder;
use serde::Deserialize;

/// The longest time in seconds between two requests that the recorder sent together.
const TOGETHER: f64 = 0.1;

/// One line of a recording.
#[derive(Deserialize)]
struct Line {
    at: f64,
    event: Option<String>,
    get: Option<String>,
    #[serde(default)]
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<String>,
    stream: Option<String>,
}

/// One recorded response.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    /// The path of the request, without its query.
    pub(crate) path: String,
    /// The status; 0 if there was no response.
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// What happens in a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// This frame is sent to the streams.
    Event(String),
    /// Responses change without an event.
    Silence,
    /// The streams end, and no other can be opened.
    StreamEnds,
    /// Streams can be opened again.
    StreamOpens,
}

/// One step: what happens, and the responses from then on.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) at: f64,
    /// Whether the responses are those after all events that came together. After the others of these events, only what
    /// the event names must be right.
    pub(crate) is_complete: bool,
    pub(crate) what: What,
    pub(crate) responses: Vec<Response>,
}

/// Reads a recording.
///
/// Marathon's tracker knows a change before Marathon sends its events, so the responses after several events that came
/// together are those of the first of them.
pub(crate) fn read(name: &str) -> Vec<Step> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/data").join(format!("{name}.jsonl.gz"));
    let mut text = String::new();
    let file = std::fs::File::open(&path).expect("a recording");
    GzDecoder::new(file).read_to_string(&mut text).expect("a whole recording");
    let mut steps: Vec<Step> = Vec::new();
    // The first step of the events that came together, and when its last response came.
    let (mut first, mut last) = (0, 0.0);
    for line in text.lines() {
        let line: Line = serde_json::from_str(line).expect("a line of a recording");
        let at = line.at;
        let mut step = |what| steps.push(Step { at, is_complete: true, what, responses: Vec::new() });
        match (line.event, line.stream.as_deref(), line.get) {
            (Some(frame), ..) => step(What::Event(frame)),
            (_, Some("open"), _) => step(What::StreamOpens),
            (_, Some("end"), _) => step(What::StreamEnds),
            (_, _, Some(path)) => {
                let path = path.split('?').next().unwrap_or_default().to_owned();
                let response =
                    Response { path, status: line.status, headers: line.headers, body: line.body.unwrap_or_default() };
                let known = |step: &Step| step.responses.iter().any(|it| it.path == response.path);
                let group = steps.get(first).is_some_and(|step| !step.responses.is_empty());
                if group && (at > last + TOGETHER || known(&steps[first])) {
                    steps.push(Step { at, is_complete: true, what: What::Silence, responses: Vec::new() });
                    first = steps.len() - 1;
                }
                last = at;
                steps[first].responses.push(response);
                continue;
            }
            _ => continue,
        }
        // An event begins a group if the responses to the one before are complete.
        if steps.get(first).is_none_or(|step| !step.responses.is_empty()) {
            first = steps.len() - 1;
        }
    }
    for index in 1..steps.len() {
        let together = matches!(steps[index].what, What::Event(_)) && steps[index].responses.is_empty();
        steps[index - 1].is_complete = !together;
    }
    steps
}
