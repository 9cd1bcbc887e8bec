//! The JSON of etcd's two APIs: the keys API of v2, and the gateway of v3. Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The whole key.
    pub key: String,
    /// The value.
    pub value: String,
}

/// The body of an error of the v2 API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct ErrorBody {
    /// The kind of error.
    #[serde(rename = "errorCode")]
    pub code: u32,
    /// The index of etcd at the time of the response.
    pub index: u64,
}

impl ErrorBody {
    /// The key does not exist.
    pub const NOT_FOUND: u32 = 100;
    /// The watch begins before the events that etcd keeps.
    pub const CLEARED: u32 = 401;
}

#[derive(Deserialize)]
struct Listing {
    node: Node,
}

#[derive(Deserialize)]
struct Node {
    key: String,
    value: Option<String>,
    #[serde(default)]
    dir: bool,
    #[serde(default)]
    nodes: Vec<Node>,
}

/// Returns all keys below a folder, from a body of the v2 API.
///
/// # Errors
/// The body is not from that API, or is not of a folder; the text is the rest of a sentence.
pub fn v2_entries(body: &[u8]) -> Result<Vec<Entry>, String> {
    let Listing { node } =
        serde_json::from_slice(body).map_err(|error| format!("did not answer as etcd does ({error})"))?;
    if !node.dir {
        return Err("is a key with a value, not a folder of services; is the path right?".into());
    }
    let (mut entries, mut folders) = (Vec::new(), vec![node]);
    while let Some(folder) = folders.pop() {
        for node in folder.nodes {
            if node.dir {
                folders.push(node);
            } else {
                entries.push(Entry { key: node.key, value: node.value.unwrap_or_default() });
            }
        }
    }
    entries.sort_unstable();
    Ok(entries)
}

/// Returns the bounds of all keys below a folder, in the format of v3.
pub fn v3_range(prefix: &str) -> (String, String) {
    // "prefix0" is the first key after all keys that begin with "prefix/".
    (STANDARD.encode(format!("{prefix}/")), STANDARD.encode(format!("{prefix}0")))
}

#[derive(Deserialize)]
struct Range {
    header: Header,
    #[serde(default)]
    kvs: Vec<KeyValue>,
    #[serde(default)]
    more: bool,
}

#[derive(Deserialize)]
struct Header {
    // 64-bit numbers are strings in this API.
    revision: String,
}

#[derive(Deserialize)]
struct KeyValue {
    key: String,
    #[serde(default)]
    value: String,
}

/// Returns all keys below a folder, from a body of the v3 API, and the revision of etcd.
///
/// # Errors
/// The body is not a whole response of that API; the text is the rest of a sentence.
pub fn v3_entries(body: &[u8]) -> Result<(Vec<Entry>, u64), String> {
    let Range { header, kvs, more } =
        serde_json::from_slice(body).map_err(|error| format!("did not answer as etcd does ({error})"))?;
    let revision = header.revision.parse().map_err(|_| "sent a response without a revision")?;
    if more {
        return Err("sent only a part of the keys".into());
    }
    let text = |encoded: &str| {
        let bytes = STANDARD.decode(encoded).map_err(|error| format!("did not answer as etcd does ({error})"))?;
        // Bytes that are not text become a key that cannot be parsed, so that there is a warning.
        Ok::<_, String>(String::from_utf8_lossy(&bytes).into_owned())
    };
    let entry = |it: &KeyValue| Ok(Entry { key: text(&it.key)?, value: text(&it.value)? });
    let entries: Result<Vec<_>, String> = kvs.iter().map(entry).collect();
    Ok((entries?, revision))
}

#[derive(Deserialize)]
struct WatchLine {
    result: WatchResult,
}

#[derive(Deserialize)]
struct WatchResult {
    #[serde(default)]
    events: Vec<serde::de::IgnoredAny>,
    #[serde(default)]
    canceled: bool,
}

/// Returns whether a line of a v3 watch means that something changed, or may have changed.
///
/// # Errors
/// The line is not from a watch; the text is the rest of a sentence.
pub fn v3_changed(line: &[u8]) -> Result<bool, String> {
    let WatchLine { result } =
        serde_json::from_slice(line).map_err(|error| format!("answered something else than a watch ({error})"))?;
    Ok(!result.events.is_empty() || result.canceled)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Recorded from etcd 3.4.23.
    const V2: &str = r#"{"action":"get","node":{"key":"/services","dir":true,"nodes":[{"key":"/services/web","dir":true,"nodes":[{"key":"/services/web/h:c:80","value":"10.0.0.1:31000","modifiedIndex":4,"createdIndex":4}],"modifiedIndex":4,"createdIndex":4}],"modifiedIndex":4,"createdIndex":4}}"#;
    const V2_MISSING: &str = r#"{"errorCode":100,"message":"Key not found","cause":"/services","index":3}"#;
    const V3: &str = r#"{"header":{"cluster_id":"7820365222946632661","member_id":"10566627401884658047","revision":"2","raft_term":"2"},"kvs":[{"key":"L3NlcnZpY2VzL3dlYi9h","create_revision":"2","mod_revision":"2","version":"1","value":"MQ=="}],"count":"1"}"#;
    const V3_EMPTY: &str = r#"{"header":{"cluster_id":"7820365222946632661","member_id":"10566627401884658047","revision":"1","raft_term":"2"}}"#;
    const V3_CREATED: &str = r#"{"result":{"header":{"cluster_id":"7820365222946632661","member_id":"10566627401884658047","revision":"2","raft_term":"2"},"created":true}}"#;
    const V3_EVENT: &str = r#"{"result":{"header":{"cluster_id":"7820365222946632661","member_id":"10566627401884658047","revision":"2","raft_term":"2"},"events":[{"kv":{"key":"L3NlcnZpY2VzL3dlYi9h","create_revision":"2","mod_revision":"2","version":"1","value":"MQ=="}}]}}"#;
    const V3_COMPACTED: &str = r#"{"result":{"header":{"cluster_id":"7820365222946632661","member_id":"10566627401884658047","raft_term":"2"},"canceled":true,"compact_revision":"2"}}"#;

    fn entry(key: &str, value: &str) -> Entry {
        Entry { key: key.into(), value: value.into() }
    }

    #[test]
    fn recorded_responses_of_v2_are_parsed() {
        assert_eq!(v2_entries(V2.as_bytes()), Ok(vec![entry("/services/web/h:c:80", "10.0.0.1:31000")]));
        let empty = r#"{"action":"get","node":{"key":"/services","dir":true,"modifiedIndex":4,"createdIndex":4}}"#;
        assert_eq!(v2_entries(empty.as_bytes()), Ok(Vec::new()));
        let refused: ErrorBody = serde_json::from_str(V2_MISSING).unwrap();
        assert_eq!(refused, ErrorBody { code: ErrorBody::NOT_FOUND, index: 3 });
        let key = r#"{"action":"get","node":{"key":"/services","value":"1","modifiedIndex":4,"createdIndex":4}}"#;
        assert!(v2_entries(key.as_bytes()).unwrap_err().contains("not a folder"));
    }

    #[test]
    fn recorded_responses_of_v3_are_parsed() {
        assert_eq!(v3_range("/services"), ("L3NlcnZpY2VzLw==".into(), "L3NlcnZpY2VzMA==".into()));
        assert_eq!(v3_entries(V3.as_bytes()), Ok((vec![entry("/services/web/a", "1")], 2)));
        assert_eq!(v3_entries(V3_EMPTY.as_bytes()), Ok((Vec::new(), 1)));
        assert_eq!(v3_changed(V3_CREATED.as_bytes()), Ok(false));
        assert_eq!(v3_changed(V3_EVENT.as_bytes()), Ok(true));
        assert_eq!(v3_changed(V3_COMPACTED.as_bytes()), Ok(true));
    }

    #[test]
    fn response_of_another_server_is_never_an_empty_folder() {
        for body in
            ["", "{}", "[]", "null", "<html>", "404 page not found", r#"{"node":{}}"#, r#"{"header":{}}"#, V2_MISSING]
        {
            assert!(v2_entries(body.as_bytes()).is_err(), "{body}");
            assert!(v3_entries(body.as_bytes()).is_err(), "{body}");
            assert!(v3_changed(body.as_bytes()).is_err(), "{body}");
        }
        for cut in 0..V2.len() {
            assert!(v2_entries(&V2.as_bytes()[..cut]).is_err(), "{cut}");
        }
        for cut in 0..V3.len() {
            assert!(v3_entries(&V3.as_bytes()[..cut]).is_err(), "{cut}");
        }
    }
}
