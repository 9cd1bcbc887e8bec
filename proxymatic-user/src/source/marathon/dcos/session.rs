//! The token of a service account: a login returns it, it is renewed before it expires, and dropped if it is refused.

use std::{
    fmt,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use reqwest::StatusCode;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::account::{Account, expiry};
use crate::source::{
    failure::Failure,
    http::{HttpClient, TokenSource},
    marathon::response_failure::status_failure,
};

/// The life of a token without an expiry: DC/OS issues tokens for five days.
const LIFE: Duration = Duration::from_secs(5 * 86_400);
/// A token is renewed this long before it expires, or when a fifth of its life is left if that is later.
const EARLY: Duration = Duration::from_secs(60);
/// The shortest and longest wait after a login without success. It doubles with each one.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The longest time for a login.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The largest response to a login, in bytes.
const MAX_BODY: usize = 1 << 20;

/// A token, and its number. Printed without its text.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::source::marathon) struct Token {
    text: String,
    serial: u64,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.serial)
    }
}

/// An account and its present token.
#[derive(Debug)]
pub(in crate::source::marathon) struct Session {
    account: Account,
    state: Mutex<State>,
}

impl Session {
    pub(in crate::source::marathon) fn new(account: Account) -> Self {
        Self { account, state: Mutex::new(State::default()) }
    }

    /// Logs in. Returns the text of a new token, and its life.
    async fn log_in(&self, http: &HttpClient) -> Result<(String, Duration), Failure> {
        #[derive(Deserialize)]
        struct Login {
            token: String,
        }
        let url = &self.account.login;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let body = self.account.login_request(now).map_err(|what| Failure::new(url, what))?;
        let response = http.send(url, http.post(url).timeout(TIMEOUT).json(&body)).await?;
        let status = response.status();
        let body = response.body(MAX_BODY).await?;
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            let what = format!("does not accept the service account {:?} ({status})", self.account.uid);
            return Err(Failure::new(url, what));
        }
        if status != StatusCode::OK {
            return Err(status_failure(url, status, true, &body));
        }
        let Login { token } =
            serde_json::from_slice(&body).map_err(|_| Failure::new(url, "answered a login without a token"))?;
        let life = expiry(&token).map_or(LIFE, |exp| Duration::from_secs(exp.saturating_sub(now)));
        Ok((token, life.min(LIFE * 100)))
    }
}

impl TokenSource for Session {
    type Token = Token;

    async fn token(&self, http: &HttpClient) -> Result<Option<Token>, Failure> {
        // The lock is held during the login, so that all requests that need a token wait for the same one.
        let mut state = self.state.lock().await;
        match state.next(Instant::now()) {
            Next::Use(token) => Ok(Some(token)),
            Next::Wait(failure) => Err(failure),
            Next::LogIn => {
                let login = self.log_in(http).await;
                state.logged_in(login, Instant::now()).map(Some)
            }
        }
    }

    fn header(token: &Token) -> String {
        format!("token={}", token.text)
    }

    async fn used(&self, token: &Token, status: StatusCode) -> bool {
        let accepted = status != StatusCode::UNAUTHORIZED;
        self.state.lock().await.used(token, accepted, Instant::now());
        !accepted
    }
}

/// The next step to get a token.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Use(Token),
    LogIn,
    Wait(Failure),
}

/// The state of the logins. The clock is an argument.
#[derive(Debug, Default)]
struct State {
    token: Option<Token>,
    /// When to renew the token, and when it expires.
    expires: Option<(Instant, Instant)>,
    /// The earliest moment of the next login.
    next_login: Option<Instant>,
    wait: Option<Duration>,
    failure: Option<Failure>,
    serial: u64,
}

impl State {
    fn next(&self, now: Instant) -> Next {
        let may_log_in = self.next_login.is_none_or(|moment| now >= moment);
        match (&self.token, self.expires) {
            (Some(token), Some((renew, expires))) if now < renew || (now < expires && !may_log_in) => {
                Next::Use(token.clone())
            }
            _ if may_log_in => Next::LogIn,
            _ => {
                let refused = || {
                    let what = "does not accept the token of the service account, although it is new";
                    Failure::without_url("Marathon", what)
                };
                Next::Wait(self.failure.clone().unwrap_or_else(refused))
            }
        }
    }

    /// Notes the result of a login. Returns the token to use.
    fn logged_in(&mut self, login: Result<(String, Duration), Failure>, now: Instant) -> Result<Token, Failure> {
        let wait = self.wait.unwrap_or(WAIT.0);
        (self.next_login, self.wait) = (Some(now + wait), Some((wait * 2).min(WAIT.1)));
        match login {
            Ok((text, life)) => {
                self.serial += 1;
                let token = Token { text, serial: self.serial };
                self.expires = Some((now + life.saturating_sub(EARLY.min(life / 5)), now + life));
                self.failure = None;
                self.token = Some(token.clone());
                Ok(token)
            }
            Err(failure) => {
                self.failure = Some(failure.clone());
                // The token that is to be renewed is still valid for a while.
                let expires = self.expires.map_or(now, |(_, expires)| expires);
                self.token.clone().filter(|_| now < expires).ok_or(failure)
            }
        }
    }

    /// Notes whether a token was accepted.
    fn used(&mut self, token: &Token, accepted: bool, now: Instant) {
        if self.token.as_ref() != Some(token) {
            return; // Another token has replaced it.
        }
        if accepted {
            self.wait = None;
        } else {
            // A token that was accepted before is renewed at once, a token that never was after a pause.
            if self.wait.is_none() {
                self.next_login = Some(now);
            }
            (self.token, self.expires) = (None, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn log_in(state: &mut State, life: Duration, now: Instant) -> Token {
        assert_eq!(state.next(now), Next::LogIn);
        state.logged_in(Ok(("t".into(), life)), now).unwrap()
    }

    #[test]
    fn token_is_used_until_shortly_before_it_expires() {
        let (mut state, now) = (State::default(), Instant::now());
        let token = log_in(&mut state, 1000 * S, now);
        assert_eq!(state.next(now + 939 * S), Next::Use(token.clone()));
        assert_eq!(state.next(now + 940 * S), Next::LogIn);
        let failure = Failure::without_url("u", "w");
        assert_eq!(state.logged_in(Err(failure.clone()), now + 940 * S), Ok(token.clone()));
        assert_eq!(state.next(now + 940 * S), Next::Use(token));
        assert_eq!(state.logged_in(Err(failure.clone()), now + 1000 * S), Err(failure));
    }

    #[test]
    fn accepted_token_that_is_refused_is_renewed_at_once() {
        let (mut state, now) = (State::default(), Instant::now());
        let token = log_in(&mut state, 1000 * S, now);
        state.used(&token, true, now);
        state.used(&token, false, now);
        let second = log_in(&mut state, 1000 * S, now);
        assert_ne!(second, token);
        state.used(&token, false, now);
        assert_eq!(state.next(now), Next::Use(second), "the refusal was of the first token");
    }

    #[test]
    fn new_tokens_that_are_refused_are_renewed_with_growing_waits() {
        let (mut state, mut now) = (State::default(), Instant::now());
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            let token = log_in(&mut state, 1000 * S, now);
            state.used(&token, false, now);
            assert!(matches!(state.next(now + (wait * S) - S / 2), Next::Wait(_)), "{wait}");
            now += wait * S;
        }
    }
}
