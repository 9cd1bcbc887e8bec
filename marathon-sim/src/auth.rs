//! The state of access control: credentials, tokens, nodes, and times without a leader.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Value, json};

/// The required credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guard {
    /// Nothing.
    #[default]
    Open,
    /// `user:password`, by HTTP basic.
    Basic(String),
    /// A token, for which this service account logs in at `/acs/api/v1/auth/login`.
    Account {
        /// The account.
        uid: String,
        /// Lifetime of a token in seconds; without it a token has no expiry.
        seconds: Option<u64>,
    },
}

/// The state of access control.
#[derive(Debug, Default)]
pub(super) struct Auth {
    pub(super) guard: Guard,
    /// Tokens, and their expiry.
    tokens: BTreeMap<String, Option<Instant>>,
    issued: u64,
    /// The addresses that nodes listen on.
    pub(super) nodes: Vec<SocketAddr>,
    /// During a time without a leader: the status of responses, and the end of that time.
    pub(super) leaderless: Option<(StatusCode, Option<Instant>)>,
}

impl Auth {
    /// Drops all tokens, as a restart of DC/OS' authentication does.
    pub(super) fn forget_tokens(&mut self) {
        self.tokens.clear();
    }

    /// Whether an `Authorization` header has the required credentials.
    pub(super) fn lets_in(&self, shown: Option<&str>) -> bool {
        match &self.guard {
            Guard::Open => true,
            Guard::Basic(pair) => shown == Some(&format!("Basic {}", STANDARD.encode(pair))),
            Guard::Account { .. } => {
                let ends = shown.and_then(|it| it.strip_prefix("token=")).and_then(|token| self.tokens.get(token));
                ends.is_some_and(|ends| ends.is_none_or(|ends| Instant::now() < ends))
            }
        }
    }

    /// Returns the status of responses while no node leads.
    pub(super) fn missing_leader(&self) -> Option<StatusCode> {
        let (code, until) = self.leaderless?;
        until.is_none_or(|until| Instant::now() < until).then_some(code)
    }

    /// Returns a new token for a valid DC/OS login.
    pub(super) fn log_in(&mut self, asked: &Value) -> Option<String> {
        let Guard::Account { uid, seconds } = &self.guard else { return None };
        let claims = asked["token"].as_str()?.split('.').nth(1)?;
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let right = asked["uid"] == json!(uid) && claims["uid"] == json!(uid) && claims["exp"].as_u64()? > now;
        self.issued += 1;
        let mut said = json!({"nth": self.issued});
        if let Some(seconds) = seconds {
            said["exp"] = json!(now + seconds);
        }
        let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(said.to_string()));
        let ends = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        right.then(|| {
            self.tokens.insert(token.clone(), ends);
            token
        })
    }
}
