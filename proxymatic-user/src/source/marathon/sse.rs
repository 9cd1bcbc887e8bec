//! The framing of server-sent events: bytes in, events out. Pure, total, linear in the bytes and bounded in memory.
//!
//! `eventsource-stream` 0.2.3 was tried first. It panics on a byte order mark, returns no more events after one byte that
//! is not UTF-8, and parses a line again with each chunk of it: an event of 8 MiB, which Marathon's deployments can reach,
//! takes 12 s.

/// The most bytes of one line, and of the data of one event. The rest is skipped. The events that are used have half a
/// kilobyte.
const MAX_LINE: usize = 64 << 10;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The field `event`, which is the type; empty if there was none.
    pub name: String,
    /// The fields `data` with newlines between them, cut if they are absurdly long.
    pub data: String,
}

/// The state between two parts of a stream.
#[derive(Debug, Default)]
pub struct Frames {
    line: Vec<u8>,
    /// The last byte was a CR: an LF that follows belongs to it.
    after_cr: bool,
    name: String,
    data: Option<String>,
}

impl Frames {
    /// Adds the next bytes of a stream, however it is cut, and returns the events that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        let mut rest = bytes;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
            self.keep(&rest[..end]);
            events.extend(self.end_of_line());
            let cr = rest[end] == b'\r';
            rest = &rest[end + 1..];
            if cr {
                self.after_cr = rest.is_empty();
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
        }
        self.keep(rest);
        events
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = MAX_LINE.saturating_sub(self.line.len());
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end_of_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        // The byte order mark is allowed only at the start of the stream, but it is never part of a field.
        let line = line.trim_start_matches('\u{feff}');
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            return self.data.take().map(|data| Event { name, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => match &mut self.data {
                None => self.data = Some(value.to_owned()),
                Some(data) if data.len() + value.len() < MAX_LINE => {
                    data.push('\n');
                    data.push_str(value);
                }
                Some(_) => {}
            },
            // Comments, `id` and `retry`, which Marathon does not send, and fields that the standard ignores.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.into(), data: data.into() }
    }

    fn whole(text: &str) -> Vec<Event> {
        Frames::default().push(text.as_bytes())
    }

    #[test]
    fn frames_of_marathon_are_parsed() {
        let text = "event: a\r\ndata: {\"x\":1}\r\n\r\n\r\nevent: b\r\ndata: 2\r\n\r\n";
        assert_eq!(whole(text), [event("a", "{\"x\":1}"), event("b", "2")]);
    }

    #[test]
    fn examples_of_the_standard_are_parsed() {
        assert_eq!(whole("data: a\n\ndata: b\ndata: c\n\n"), [event("", "a"), event("", "b\nc")]);
        assert_eq!(whole(": test\n\ndata:x\nid: 1\n\ndata:  y\n\n"), [event("", "x"), event("", " y")]);
        assert_eq!(whole("data\n\ndata\ndata\n\ndata:"), [event("", ""), event("", "\n")]);
        assert_eq!(whole("event: lost\n\ndata: a\r\revent: b\rdata: c\r\r"), [event("", "a"), event("b", "c")]);
        assert_eq!(whole("\u{feff}data: a\n\n"), [event("", "a")]);
    }

    #[test]
    fn heartbeat_in_two_writes_is_no_event() {
        let mut frames = Frames::default();
        for part in ["\r", "\n", "\r", "\n", "event: a\r", "\ndata: 1\r", "\n"] {
            assert_eq!(frames.push(part.as_bytes()), []);
        }
        assert_eq!(frames.push(b"\r"), [event("a", "1")]);
        for part in ["\n", "\r", "\n"] {
            assert_eq!(frames.push(part.as_bytes()), []);
        }
    }

    #[test]
    fn long_line_takes_linear_time_and_bounded_memory() {
        let mut frames = Frames::default();
        assert_eq!(frames.push(b"event: long\r\ndata: "), []);
        for _ in 0..4096 {
            assert_eq!(frames.push(&[b'x'; 8192]), []);
            assert!(frames.line.len() <= MAX_LINE);
        }
        let long = frames.push(b"\r\n\r\nevent: next\r\ndata: 1\r\n\r\n");
        assert_eq!((long[0].name.as_str(), long[0].data.len()), ("long", MAX_LINE - "data: ".len()));
        assert_eq!(long[1], event("next", "1"));
        let many = "data: xxxxxxxxxxxxxxxx\n".repeat(100_000) + "\n";
        assert!(whole(&many)[0].data.len() < MAX_LINE);
    }

    #[test]
    fn bytes_that_are_not_text_cost_only_their_event() {
        let events = Frames::default().push(b"data: a\xff\n\ndata: b\n\n");
        assert_eq!(events, [event("", "a\u{fffd}"), event("", "b")]);
    }

    proptest! {
        #[test]
        fn events_do_not_depend_on_how_the_stream_is_cut(
            lines in prop::collection::vec("(event|data|id|)(:?) ?[a-zé]{0,6}(\r\n|\n|\r|\r\n\r\n)", 0..20),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let bytes = lines.concat().into_bytes();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut frames = Frames::default();
            let parts: Vec<_> = cuts.windows(2).flat_map(|cut| frames.push(&bytes[cut[0]..cut[1]])).collect();
            prop_assert_eq!(parts, Frames::default().push(&bytes));
        }

        #[test]
        fn any_bytes_are_framed(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..50)) {
            let mut frames = Frames::default();
            for part in parts {
                frames.push(&part);
            }
        }
    }
}
