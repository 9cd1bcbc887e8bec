//! A cache of earlier definitions that tasks still run. A definition never changes, so each is requested once, or never if
//! the agent has seen it as the present one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};

use super::lookups::{AppVersion, Definitions};
use crate::source::failure::Failure;

/// How long a definition that Marathon does not have is not requested again.
const MISSING: Duration = Duration::from_secs(60);
/// The number of failures in a row after which a definition counts as missing: a definition that Marathon cannot return
/// must not block the other services for ever.
const MAX_FAILURES: u32 = 5;
/// How many definitions are requested at the same time.
const AT_ONCE: usize = 8;

/// How long a definition that no listing needs is kept: the next deployment may need it again.
const UNUSED: Duration = Duration::from_secs(600);

/// The definitions that listings have needed a short time ago.
#[derive(Debug)]
pub(super) struct DefinitionCache<T> {
    entries: BTreeMap<AppVersion, Entry<T>>,
    /// When each definition was needed last.
    needed: BTreeMap<AppVersion, Instant>,
}

impl<T> Default for DefinitionCache<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), needed: BTreeMap::new() }
    }
}

#[derive(Debug)]
enum Entry<T> {
    Known(Arc<T>),
    Missing { reason: String, since: Instant },
    Failing { failures: u32 },
}

impl<T> DefinitionCache<T> {
    /// Returns the definitions, or one sentence for a definition that Marathon does not have. `request` requests one
    /// definition.
    ///
    /// # Errors
    /// A request failed, so the definition may exist, and the read is repeated later.
    pub(super) async fn fetch<F: Future<Output = Result<T, Failure>>>(
        &mut self,
        wanted: &BTreeSet<AppVersion>,
        request: impl Fn(AppVersion) -> F,
    ) -> Result<Definitions<T>, Failure> {
        let now = Instant::now();
        self.needed.extend(wanted.iter().map(|key| (key.clone(), now)));
        self.needed.retain(|_, needed| now.saturating_duration_since(*needed) < UNUSED);
        self.entries.retain(|key, _| self.needed.contains_key(key));
        let unknown: Vec<_> = wanted.iter().filter(|key| self.must_request(key)).cloned().collect();
        let with_key = |key: AppVersion| {
            let response = request(key.clone());
            async move { (response.await, key) }
        };
        let responses: Vec<_> = stream::iter(unknown).map(with_key).buffer_unordered(AT_ONCE).collect().await;
        let mut first_failure = None;
        for (response, key) in responses {
            first_failure = first_failure.or(self.insert(key, response));
        }
        match first_failure {
            Some(failure) => Err(failure),
            None => {
                let wanted = self.entries.iter().filter(|(key, _)| wanted.contains(key));
                Ok(wanted.map(|(key, entry)| (key.clone(), entry.result())).collect())
            }
        }
    }

    /// Adds a definition that was read as the present one of its app.
    pub(super) fn add(&mut self, key: AppVersion, definition: T) {
        self.entries.insert(key, Entry::Known(Arc::new(definition)));
    }

    fn must_request(&self, key: &AppVersion) -> bool {
        match self.entries.get(key) {
            None | Some(Entry::Failing { .. }) => true,
            Some(Entry::Known(_)) => false,
            Some(Entry::Missing { since, .. }) => since.elapsed() >= MISSING,
        }
    }

    /// Stores the result of a request. Returns a failure after which the read must be repeated.
    fn insert(&mut self, key: AppVersion, response: Result<T, Failure>) -> Option<Failure> {
        let before = self.entries.get(&key);
        let failures = match before {
            Some(Entry::Failing { failures }) => *failures,
            Some(Entry::Missing { .. }) => MAX_FAILURES,
            Some(Entry::Known(_)) | None => 0,
        };
        let (entry, failure) = match response {
            Ok(it) => (Entry::Known(Arc::new(it)), None),
            Err(failure) if failure.not_found || failures + 1 >= MAX_FAILURES => {
                (Entry::Missing { reason: failure.to_string(), since: Instant::now() }, None)
            }
            Err(failure) => (Entry::Failing { failures: failures + 1 }, Some(failure)),
        };
        self.entries.insert(key, entry);
        failure
    }
}

impl<T> Entry<T> {
    fn result(&self) -> Result<Arc<T>, String> {
        match self {
            Self::Known(it) => Ok(Arc::clone(it)),
            Self::Missing { reason, .. } => Err(reason.clone()),
            Self::Failing { failures } => Err(format!("it failed {failures} times")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(missing: bool) -> Failure {
        Failure { not_found: missing, ..Failure::without_url("http://h", "failed") }
    }

    #[test]
    fn definition_that_keeps_failing_counts_as_missing() {
        let (mut cache, key) = (DefinitionCache::<u8>::default(), ("/a".to_owned(), "v".to_owned()));
        for _ in 1..MAX_FAILURES {
            assert!(cache.must_request(&key));
            assert_eq!(cache.insert(key.clone(), Err(failure(false))), Some(failure(false)));
        }
        assert_eq!(cache.insert(key.clone(), Err(failure(false))), None);
        assert!(!cache.must_request(&key));
        assert!(cache.entries[&key].result().is_err());
        assert_eq!(cache.insert(key.clone(), Ok(7)), None);
        assert!(cache.entries[&key].result().is_ok() && !cache.must_request(&key));
    }

    #[test]
    fn definition_that_does_not_exist_is_missing_at_once() {
        let (mut cache, key) = (DefinitionCache::<u8>::default(), ("/a".to_owned(), "v".to_owned()));
        assert_eq!(cache.insert(key.clone(), Err(failure(true))), None);
        assert_eq!(cache.entries[&key].result().unwrap_err(), "http://h failed");
        assert!(!cache.must_request(&key));
    }
}
