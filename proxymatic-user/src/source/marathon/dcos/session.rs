//! The token of a service account: had by logging in, renewed before it ends, and given up when it is refused.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use reqwest::StatusCode;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{Account, expiry};
use crate::source::marathon::failure::Failure;

/// How long a token lasts that does not say it: DC/OS gives five days.
const LIFE: Duration = Duration::from_secs(5 * 86_400);
/// A token is renewed when a fifth of its life is left, or this long.
const EARLY: Duration = Duration::from_secs(60);
/// How long after a login that was of no use there is no other. It doubles with each one.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long a login may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A token, and which it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::source::marathon) struct Token {
    pub(in crate::source::marathon) text: String,
    serial: u64,
}

/// An account and its token of the moment.
#[derive(Debug)]
pub(in crate::source::marathon) struct Session {
    account: Account,
    state: Mutex<State>,
}

impl Session {
    pub(in crate::source::marathon) fn new(account: Account) -> Self {
        Self { account, state: Mutex::new(State::default()) }
    }

    /// The token to use now; logs in where that is needed.
    pub(in crate::source::marathon) async fn token(&self, http: &reqwest::Client) -> Result<Token, Failure> {
        // Held while logging in: whoever else needs a token waits for the same one.
        let mut state = self.state.lock().await;
        match state.next(Instant::now()) {
            Next::Use(token) => Ok(token),
            Next::Wait(failure) => Err(failure),
            Next::LogIn => {
                let answer = self.log_in(http).await;
                state.logged_in(answer, Instant::now())
            }
        }
    }

    /// What became of a token: whether it was accepted.
    pub(in crate::source::marathon) async fn used(&self, token: &Token, accepted: bool) {
        self.state.lock().await.used(token, accepted, Instant::now());
    }

    /// The text of a new token, and how long it lasts.
    async fn log_in(&self, http: &reqwest::Client) -> Result<(String, Duration), Failure> {
        #[derive(Deserialize)]
        struct Answer {
            token: String,
        }
        let url = &self.account.login;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let body = self.account.login(now).map_err(|what| Failure::new(url, what))?;
        let response = http.post(url.clone()).timeout(TIMEOUT).json(&body).send().await;
        let response = response.map_err(|error| Failure::request(url, &error))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| Failure::request(url, &error))?;
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            let what = format!("does not accept the service account {:?} ({status})", self.account.uid);
            return Err(Failure::new(url, what));
        }
        if status != StatusCode::OK {
            return Err(Failure::status(url, status, true, &body));
        }
        let Answer { token } =
            serde_json::from_slice(&body).map_err(|_| Failure::new(url, "answered a login without a token"))?;
        let life = expiry(&token).map_or(LIFE, |exp| Duration::from_secs(exp.saturating_sub(now)));
        Ok((token, life.min(LIFE * 100)))
    }
}

/// What to do for a token.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Use(Token),
    LogIn,
    Wait(Failure),
}

/// What is known of logins. The clock is an argument.
#[derive(Debug, Default)]
struct State {
    token: Option<Token>,
    /// When the token is to be renewed, and when it ends.
    ends: Option<(Instant, Instant)>,
    /// Before that moment there is no other login.
    again: Option<Instant>,
    wait: Option<Duration>,
    failure: Option<Failure>,
    serial: u64,
}

impl State {
    fn next(&self, now: Instant) -> Next {
        let may_log_in = self.again.is_none_or(|again| now >= again);
        match (&self.token, self.ends) {
            (Some(token), Some((renew, ends))) if now < renew || (now < ends && !may_log_in) => {
                Next::Use(token.clone())
            }
            _ if may_log_in => Next::LogIn,
            _ => {
                let refused = || Failure {
                    url: "Marathon".into(),
                    what: "does not accept the token of the service account, though it is new".into(),
                    not_found: false,
                };
                Next::Wait(self.failure.clone().unwrap_or_else(refused))
            }
        }
    }

    fn logged_in(&mut self, answer: Result<(String, Duration), Failure>, now: Instant) -> Result<Token, Failure> {
        let wait = self.wait.unwrap_or(WAIT.0);
        (self.again, self.wait) = (Some(now + wait), Some((wait * 2).min(WAIT.1)));
        match answer {
            Ok((text, life)) => {
                self.serial += 1;
                let token = Token { text, serial: self.serial };
                self.ends = Some((now + life.saturating_sub(EARLY.min(life / 5)), now + life));
                self.failure = None;
                self.token = Some(token.clone());
                Ok(token)
            }
            Err(failure) => {
                self.failure = Some(failure.clone());
                // The one that is to be renewed is good for a little longer.
                let ends = self.ends.map_or(now, |(_, ends)| ends);
                self.token.clone().filter(|_| now < ends).ok_or(failure)
            }
        }
    }

    fn used(&mut self, token: &Token, accepted: bool, now: Instant) {
        if self.token.as_ref() != Some(token) {
            return; // There is another by now.
        }
        if accepted {
            self.wait = None;
        } else {
            // One that was good until now is renewed at once, one that never was after a pause.
            if self.wait.is_none() {
                self.again = Some(now);
            }
            (self.token, self.ends) = (None, None);
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
    fn a_token_is_used_until_shortly_before_it_ends() {
        let (mut state, now) = (State::default(), Instant::now());
        let token = log_in(&mut state, 1000 * S, now);
        assert_eq!(state.next(now + 939 * S), Next::Use(token.clone()));
        assert_eq!(state.next(now + 940 * S), Next::LogIn);
        let failure = Failure { url: "u".into(), what: "w".into(), not_found: false };
        assert_eq!(state.logged_in(Err(failure.clone()), now + 940 * S), Ok(token.clone()));
        assert_eq!(state.next(now + 940 * S), Next::Use(token));
        assert_eq!(state.logged_in(Err(failure.clone()), now + 1000 * S), Err(failure));
    }

    #[test]
    fn a_token_that_was_good_and_is_refused_is_renewed_at_once() {
        let (mut state, now) = (State::default(), Instant::now());
        let token = log_in(&mut state, 1000 * S, now);
        state.used(&token, true, now);
        state.used(&token, false, now);
        let second = log_in(&mut state, 1000 * S, now);
        assert_ne!(second, token);
        state.used(&token, false, now);
        assert_eq!(state.next(now), Next::Use(second), "the other one was meant");
    }

    #[test]
    fn tokens_that_are_refused_at_once_are_asked_for_ever_more_patiently() {
        let (mut state, mut now) = (State::default(), Instant::now());
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            let token = log_in(&mut state, 1000 * S, now);
            state.used(&token, false, now);
            assert!(matches!(state.next(now + (wait * S) - S / 2), Next::Wait(_)), "{wait}");
            now += wait * S;
        }
    }
}
