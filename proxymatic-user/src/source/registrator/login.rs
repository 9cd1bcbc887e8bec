//! The token that etcd's v3 API gives for a user and a password. It is good for some minutes after its last use, and
//! until etcd starts again.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use reqwest::{StatusCode, Url};
use serde::Deserialize;
use serde_json::json;

use super::client::{Failure, at, send, whole};
use crate::source::credentials::Credentials;

const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Login(Mutex<Option<String>>);

#[derive(Deserialize)]
struct Answer {
    token: String,
}

impl Login {
    /// The token that was given last.
    pub(super) fn token(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A token of this member, which all others take. `None` where it lets in everybody, or has no such API.
    pub(super) async fn log_in(
        &self,
        http: &reqwest::Client,
        endpoint: &Url,
        credentials: &Credentials,
    ) -> Result<Option<String>, Failure> {
        let url = at(endpoint, "/v3/auth/authenticate");
        let Credentials { user, password } = credentials;
        let body = json!({ "name": user, "password": password });
        let response = send(&url, http.post(url.clone()).json(&body).timeout(TIMEOUT)).await?;
        let status = response.status();
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let body = whole(&url, response).await?;
        let text = String::from_utf8_lossy(&body);
        if status == StatusCode::OK {
            let Answer { token } = serde_json::from_slice(&body)
                .map_err(|error| Failure::new(&url, format!("did not answer as etcd does ({error})")))?;
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
            return Ok(Some(token));
        }
        if text.contains("authentication is not enabled") {
            return Ok(None);
        }
        let what = match text.contains("invalid user ID or password") {
            true => format!("does not accept the credentials ({status})"),
            false => format!("answered {status}: {:?}", text.trim().chars().take(200).collect::<String>()),
        };
        Err(Failure::new(&url, what))
    }
}
