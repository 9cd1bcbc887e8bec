//! The JSON of etcd's two APIs: the keys API of v2, and the gateway to v3. Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The whole key.
    pub key: String,
    /// What it holds.
    pub value: String,
}

/// What the v2 API says of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Refused {
    /// 100 for a key that is not there, 401 for a watch that begins too long ago.
    #[serde(rename = "errorCode")]
    pub code: u32,
    /// The state of etcd that this is true of.
    pub index: u64,
}

impl Refused {
    /// There is no such key.
    pub const NOT_FOUND: u32 = 100;
    /// The events since then are forgotten.
    pub const CLEARED: u32 = 401;
}

#[derive(Deserialize)]
struct Got {
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

/// All keys below a folder, by the v2 API.
///
/// # Errors
/// It is no answer of that API, or not of a folder; the rest of a sentence.
pub fn v2_entries(body: &[u8]) -> Result<Vec<Entry>, String> {
    let Got { node } =
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

/// The bounds of all keys below a folder, as v3 wants them.
pub fn v3_range(prefix: &str) -> (String, String) {
    // The first key after all that begin with "prefix/" is "prefix0".
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

/// All keys below a folder, by the v3 API, and the revision that this is true of.
///
/// # Errors
/// It is no whole answer of that API; the rest of a sentence.
pub fn v3_entries(body: &[u8]) -> Result<(Vec<Entry>, u64), String> {
    let Range { header, kvs, more } =
        serde_json::from_slice(body).map_err(|error| format!("did not answer as etcd does ({error})"))?;
    let revision = header.revision.parse().map_err(|_| "did not say at which revision its answer is")?;
    if more {
        return Err("gave only a part of the keys".into());
    }
    let text = |encoded: &str| {
        let bytes = STANDARD.decode(encoded).map_err(|error| format!("did not answer as etcd does ({error})"))?;
        // Bytes that are no text make a key that nothing can be read from, and that is warned of.
        Ok::<_, String>(String::from_utf8_lossy(&bytes).into_owned())
    };
    let entry = |it: &KeyValue| Ok(Entry { key: text(&it.key)?, value: text(&it.value)? });
    let entries: Result<Vec<_>, String> = kvs.iter().map(entry).collect();
    Ok((entries?, revision))
}

#[derive(Deserialize)]
struct Watched {
    result: WatchResult,
}

#[derive(Deserialize)]
struct WatchResult {
    #[serde(default)]
    events: Vec<serde::de::IgnoredAny>,
    #[serde(default)]
    canceled: bool,
}

/// Whether a line of a v3 watch says that something changed, or may have.
///
/// # Errors
/// It is no line of a watch; the rest of a sentence.
pub fn v3_changed(line: &[u8]) -> Result<bool, String> {
    let Watched { result } =
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
    fn recorded_answers_of_v2() {
        assert_eq!(v2_entries(V2.as_bytes()), Ok(vec![entry("/services/web/h:c:80", "10.0.0.1:31000")]));
        let empty = r#"{"action":"get","node":{"key":"/services","dir":true,"modifiedIndex":4,"createdIndex":4}}"#;
        assert_eq!(v2_entries(empty.as_bytes()), Ok(Vec::new()));
        let refused: Refused = serde_json::from_str(V2_MISSING).unwrap();
        assert_eq!(refused, Refused { code: Refused::NOT_FOUND, index: 3 });
        let key = r#"{"action":"get","node":{"key":"/services","value":"1","modifiedIndex":4,"createdIndex":4}}"#;
        assert!(v2_entries(key.as_bytes()).unwrap_err().contains("not a folder"));
    }

    #[test]
    fn recorded_answers_of_v3() {
        assert_eq!(v3_range("/services"), ("L3NlcnZpY2VzLw==".into(), "L3NlcnZpY2VzMA==".into()));
        assert_eq!(v3_entries(V3.as_bytes()), Ok((vec![entry("/services/web/a", "1")], 2)));
        assert_eq!(v3_entries(V3_EMPTY.as_bytes()), Ok((Vec::new(), 1)));
        assert_eq!(v3_changed(V3_CREATED.as_bytes()), Ok(false));
        assert_eq!(v3_changed(V3_EVENT.as_bytes()), Ok(true));
        assert_eq!(v3_changed(V3_COMPACTED.as_bytes()), Ok(true));
    }

    #[test]
    fn what_is_no_answer_of_etcd_is_never_an_empty_one() {
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
