//! The policy: how a backend is picked for a new connection.

use std::{fmt, str::FromStr};

use proxymatic_common::Policy as Code;
use serde::Deserialize;

use super::kind::{FromLabel, Kind, Parsed};

/// The policy: how a backend is picked for a new connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// Draws two backends by weight and picks the less loaded one.
    #[default]
    Leastconn,
    /// Draws one backend by weight.
    Random,
    /// Picks the next backend in turn, by weight.
    Roundrobin,
    /// Picks by the client's address or cgroup.
    Source,
    /// Draws two backends by weight and picks the one with the lower latency.
    Latency,
    /// Picks by client and source port; few clients move if backends come or go.
    Maglev,
}

impl Policy {
    /// All policies, in the order of the documents.
    pub const ALL: [Self; 6] =
        [Self::Leastconn, Self::Random, Self::Roundrobin, Self::Source, Self::Latency, Self::Maglev];

    /// Returns the policy as the hooks know it. It has the name and the layout of the slots.
    pub const fn code(self) -> Code {
        match self {
            Self::Leastconn => Code::LEASTCONN,
            Self::Random => Code::RANDOM,
            Self::Roundrobin => Code::ROUNDROBIN,
            Self::Source => Code::SOURCE,
            Self::Latency => Code::LATENCY,
            Self::Maglev => Code::MAGLEV,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code().name())
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|policy| policy.code().name() == text);
        known.ok_or_else(|| {
            let [first @ .., last] = Self::ALL.map(|policy| policy.code().name());
            format!("must be one of {} and {last}", first.join(", "))
        })
    }
}

/// The kind of value of a policy: its name.
pub(super) struct PolicyName;

/// The policy in the services file.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct InFile(Policy);

impl TryFrom<String> for InFile {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|must: String| format!("policy {text:?}: {must}"))
    }
}

impl Kind for PolicyName {
    type Value = Policy;
    type InFile = InFile;
    type Saved = String;

    fn default_value() -> Policy {
        Policy::default()
    }

    fn from_file(InFile(policy): InFile) -> Policy {
        policy
    }

    fn log_text(policy: &Policy) -> String {
        policy.to_string()
    }

    fn save(policy: &Policy) -> String {
        policy.to_string()
    }

    fn restore(name: String) -> Result<Policy, String> {
        name.parse().map_err(|must: String| format!("policy {name:?} {must}"))
    }
}

impl FromLabel for PolicyName {
    fn values() -> String {
        Policy::ALL.map(|policy| format!("`{policy}`")).join(", ")
    }

    fn from_label(text: &str) -> Parsed<Policy> {
        match text.parse::<Policy>() {
            Ok(policy) => Parsed::Valid(policy),
            Err(must) => Parsed::Invalid(format!("{must}; it is left out")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_of_the_model_are_those_of_the_hooks() {
        let known: Vec<_> = (0..100).map(Code).filter(|code| code.name() != "unknown").collect();
        assert_eq!(Policy::ALL.map(Policy::code).as_slice(), known);
        for policy in Policy::ALL {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        assert_eq!(
            "fastest".parse::<Policy>(),
            Err("must be one of leastconn, random, roundrobin, source, latency and maglev".into())
        );
    }
}
