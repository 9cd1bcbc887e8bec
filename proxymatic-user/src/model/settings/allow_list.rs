//! An allow list.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::kind::{FromLabel, Kind, Parsed};
use crate::model::AllowRule;

/// The kind of value of an allow list; `None` allows all clients.
pub(super) struct AllowList;

/// One entry in the services file.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct InFile(AllowRule);

impl TryFrom<String> for InFile {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|must| format!("{text:?} {must}"))
    }
}

impl Kind for AllowList {
    type Value = Option<BTreeSet<AllowRule>>;
    type InFile = Option<Vec<InFile>>;
    type Saved = Option<BTreeSet<String>>;

    fn default_value() -> Self::Value {
        None
    }

    fn from_file(list: Self::InFile) -> Self::Value {
        list.map(|list| list.into_iter().map(|InFile(allowed)| allowed).collect())
    }

    fn log_text(list: &Self::Value) -> String {
        let entries = |list: &BTreeSet<AllowRule>| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        list.as_ref().map_or("everybody".into(), entries)
    }

    fn save(list: &Self::Value) -> Self::Saved {
        list.as_ref().map(|list| list.iter().map(ToString::to_string).collect())
    }

    fn restore(list: Self::Saved) -> Result<Self::Value, String> {
        // A list without this entry would still be a valid list, but not the one that was written.
        let entry = |entry: &String| entry.parse().map_err(|must| format!("an entry of its allow list {must}"));
        list.map(|list| list.iter().map(entry).collect()).transpose()
    }
}

impl FromLabel for AllowList {
    fn values() -> String {
        "addresses, networks and cgroups, with commas between".into()
    }

    /// Parses an allow list. A list with an invalid entry remains a list, because a slip must not open the service: the
    /// invalid entry allows no client.
    fn from_label(text: &str) -> Parsed<Self::Value> {
        let (mut list, mut wrong) = (BTreeSet::new(), Vec::new());
        for part in text.split(',').map(str::trim) {
            match part.parse() {
                Ok(allowed) => {
                    list.insert(allowed);
                }
                Err(must) => wrong.push(format!("{part:?} {must}; the entry allows no client")),
            }
        }
        if wrong.is_empty() { Parsed::Valid(Some(list)) } else { Parsed::Partly(Some(list), wrong.join("; ")) }
    }
}
