//! The token that etcd's v3 API returns for a user and a password. It is valid for some minutes after its last use, and
//! until etcd restarts.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use reqwest::{StatusCode, Url};
use serde::Deserialize;
use serde_json::json;

use super::response_failure::{message, path_url};
use crate::source::{
    credentials::Credentials,
    failure::Failure,
    http::{HttpClient, TokenSource},
};

/// The longest time for a login.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest response to a login, in bytes.
const MAX_BODY: usize = 1 << 20;

/// The token of the last login. Printed without it.
#[derive(Default)]
pub(super) struct Login(Mutex<Option<String>>);

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

/// The login to one member of the cluster.
pub(super) struct MemberLogin<'a> {
    pub(super) login: &'a Login,
    pub(super) endpoint: &'a Url,
    pub(super) credentials: &'a Credentials,
}

/// A token, and whether it is from an earlier request.
pub(super) struct Token {
    text: String,
    reused: bool,
}

#[derive(Deserialize)]
struct Authenticated {
    token: String,
}

impl Login {
    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemberLogin<'_> {
    /// Returns a token of this member, which all other members accept. `None` if the member requires no login, or has no
    /// such API.
    async fn log_in(&self, http: &HttpClient) -> Result<Option<String>, Failure> {
        let url = path_url(self.endpoint, "/v3/auth/authenticate");
        let Credentials { user, password } = self.credentials;
        let body = json!({ "name": user, "password": password });
        let response = http.send(&url, http.post(&url).json(&body).timeout(TIMEOUT)).await?;
        let status = response.status();
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let body = response.body(MAX_BODY).await?;
        if status == StatusCode::OK {
            let Authenticated { token } = serde_json::from_slice(&body)
                .map_err(|error| Failure::new(&url, format!("did not answer as etcd does ({error})")))?;
            *self.login.lock() = Some(token.clone());
            return Ok(Some(token));
        }
        let text = message(&body);
        if text.contains("authentication is not enabled") {
            return Ok(None);
        }
        let what = match text.contains("invalid user ID or password") {
            true => format!("does not accept the credentials ({status})"),
            false => format!("answered {status}: {text:?}"),
        };
        Err(Failure::new(&url, what))
    }
}

impl TokenSource for MemberLogin<'_> {
    type Token = Token;

    async fn token(&self, http: &HttpClient) -> Result<Option<Token>, Failure> {
        let known = self.login.lock().clone();
        match known {
            Some(text) => Ok(Some(Token { text, reused: true })),
            None => Ok(self.log_in(http).await?.map(|text| Token { text, reused: false })),
        }
    }

    fn header(token: &Token) -> String {
        token.text.clone()
    }

    async fn used(&self, token: &Token, status: StatusCode) -> bool {
        let refused = matches!(status.as_u16(), 400 | 401 | 403);
        if refused && token.reused {
            *self.login.lock() = None;
        }
        refused && token.reused
    }
}
