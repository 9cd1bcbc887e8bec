//! The times of first versions, which decide the owner of a service that several apps claim alike. They are requested only
//! then, and within a short time: every read waits for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::Value;

use super::timestamp::millis;
use crate::source::failure::Failure;

/// The longest time for all requests of one read.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How many apps are requested at the same time.
const AT_ONCE: usize = 8;
/// The most apps that one read requests. The others are first by id until a later read.
const MAX_ASKED: usize = 200;
/// How long a result is used, and a failure is not repeated.
const KEPT: Duration = Duration::from_secs(60);

/// The time of the first version of each app, in milliseconds since 1970, or a sentence that says why there is none.
pub(super) type FirstVersionTimes = BTreeMap<String, Result<i64, String>>;

/// The times of the last minute.
#[derive(Debug, Default)]
pub(super) struct FirstVersions(BTreeMap<String, (Instant, Result<i64, String>)>);

impl FirstVersions {
    /// Returns the result for each of these apps. `request` requests the first version of one app.
    pub(super) async fn fetch<F: Future<Output = Result<i64, Failure>>>(
        &mut self,
        apps: &BTreeSet<String>,
        request: impl Fn(String) -> F,
    ) -> FirstVersionTimes {
        self.fetch_within(TIMEOUT, apps, request).await
    }

    async fn fetch_within<F: Future<Output = Result<i64, Failure>>>(
        &mut self,
        most: Duration,
        apps: &BTreeSet<String>,
        request: impl Fn(String) -> F,
    ) -> FirstVersionTimes {
        let now = Instant::now();
        self.0.retain(|_, (at, _)| now.saturating_duration_since(*at) < KEPT);
        let unknown: Vec<_> = apps.iter().filter(|app| !self.0.contains_key(*app)).take(MAX_ASKED).cloned().collect();
        let deadline = (now + most).into();
        let bounded = |app: String| {
            let response = tokio::time::timeout_at(deadline, request(app.clone()));
            async move {
                let time = match response.await {
                    Ok(response) => response.map_err(|failure| failure.to_string()),
                    Err(_) => Err(format!("did not list the versions of {app} within {} s", most.as_secs())),
                };
                (app, (now, time))
            }
        };
        let times: Vec<_> = stream::iter(unknown).map(bounded).buffer_unordered(AT_ONCE).collect().await;
        for (app, (_, time)) in &times {
            tracing::debug!("the first version of {app}: {time:?}");
        }
        self.0.extend(times);
        let result = |app: &String| match self.0.get(app) {
            Some((_, time)) => time.clone(),
            None => Err(format!("more than {MAX_ASKED} apps claim what others claim too")),
        };
        apps.iter().map(|app| (app.clone(), result(app))).collect()
    }
}

/// The list of an app's versions.
#[derive(Deserialize)]
struct AppVersions {
    versions: Vec<Value>,
}

/// Parses the response to `GET /v2/apps/ID/versions`.
pub(super) fn parse(body: &[u8]) -> Result<Option<i64>, serde_json::Error> {
    serde_json::from_slice(body).map(|AppVersions { versions }| first(&versions))
}

/// Parses the response to `GET /v2/pods/ID::versions`.
pub(super) fn parse_of_pod(body: &[u8]) -> Result<Option<i64>, serde_json::Error> {
    serde_json::from_slice(body).map(|versions: Vec<Value>| first(&versions))
}

fn first(versions: &[Value]) -> Option<i64> {
    versions.iter().filter_map(|version| millis(version.as_str()?)).min()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_version_is_the_oldest_in_any_order() {
        let lists = [
            r#"["2020-01-02T00:00:00.000Z","2020-01-01T00:00:00.000Z"]"#,
            r#"["2020-01-01T00:00:00.000Z",7,null,"soon","2021-01-01T00:00:00.000Z"]"#,
        ];
        for list in lists {
            let expected = millis("2020-01-01T00:00:00.000Z");
            assert!(expected.is_some());
            assert_eq!(parse_of_pod(list.as_bytes()).unwrap(), expected);
            assert_eq!(parse(format!(r#"{{"versions":{list}}}"#).as_bytes()).unwrap(), expected);
        }
        assert_eq!(parse(br#"{"versions":[]}"#).unwrap(), None);
        assert!(parse(b"[]").is_err() && parse_of_pod(b"{}").is_err() && parse(b"").is_err());
    }

    proptest! {
        #[test]
        fn any_list_of_versions_has_a_result(body in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,200}") {
            for body in [&body, text.as_bytes(), format!("[{text:?}]").as_bytes()] {
                let _ = (parse(body), parse_of_pod(body));
            }
        }
    }

    #[tokio::test]
    async fn each_app_is_requested_once_a_minute_also_after_a_failure() {
        let (mut versions, asked) = (FirstVersions::default(), RefCell::new(Vec::new()));
        let apps = ["/a".to_owned(), "/b".to_owned()].into();
        for _ in 0..2 {
            let request = |app: String| {
                asked.borrow_mut().push(app.clone());
                let time = if app == "/a" { Ok(7) } else { Err(Failure::without_url("http://h", "failed")) };
                std::future::ready(time)
            };
            let times = versions.fetch(&apps, request).await;
            assert_eq!(times["/a"], Ok(7));
            assert_eq!(times["/b"], Err("http://h failed".to_owned()));
        }
        assert_eq!(asked.into_inner(), ["/a", "/b"]);
    }

    #[tokio::test]
    async fn silent_marathon_is_not_awaited_for_ever() {
        let apps = ["/a".to_owned()].into();
        let silent = |_| std::future::pending();
        let times = FirstVersions::default().fetch_within(Duration::ZERO, &apps, silent).await;
        assert_eq!(times["/a"], Err("did not list the versions of /a within 0 s".to_owned()));
    }

    #[tokio::test]
    async fn apps_beyond_the_limit_are_not_requested() {
        let apps: BTreeSet<_> = (0..MAX_ASKED + 5).map(|n| format!("/{n}")).collect();
        let times = FirstVersions::default().fetch(&apps, |_| std::future::ready(Ok(1))).await;
        assert_eq!(times.len(), apps.len());
        assert_eq!(times.values().filter(|time| time.is_err()).count(), 5);
    }
}
