//! Earlier definitions that tasks still run: they never change, so each is asked for once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};

use super::{convert::AppVersion, failure::Failure};

/// How long a definition that Marathon does not have is not asked for again.
const MISSING: Duration = Duration::from_secs(60);
/// After so many failures in a row a definition is taken as missing: one that Marathon cannot give any more must not
/// keep everything else from being read.
const PATIENCE: u32 = 5;
/// How many are asked for at the same time.
const AT_ONCE: usize = 8;

/// The definitions that the last listing needed, and no others: so they are never more than there are tasks.
#[derive(Debug)]
pub(super) struct DefinitionCache<T>(BTreeMap<AppVersion, Entry<T>>);

impl<T> Default for DefinitionCache<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

#[derive(Debug)]
enum Entry<T> {
    Known(Arc<T>),
    Missing { reason: String, asked: Instant },
    Failing { failures: u32 },
}

/// What is known of definitions; an error is a sentence that says why there is nothing.
pub(super) type Definitions<T> = BTreeMap<AppVersion, Result<Arc<T>, String>>;

impl<T> DefinitionCache<T> {
    /// The definitions, each with one sentence if Marathon does not have it. All others are forgotten. `ask` gets one.
    ///
    /// `Err` if one could not be asked for: then there may be such a definition, and the whole is tried again later.
    pub(super) async fn fetch<F: Future<Output = Result<T, Failure>>>(
        &mut self,
        wanted: &BTreeSet<AppVersion>,
        ask: impl Fn(AppVersion) -> F,
    ) -> Result<Definitions<T>, Failure> {
        self.0.retain(|key, _| wanted.contains(key));
        let unknown: Vec<_> = wanted.iter().filter(|key| self.must_ask(key)).cloned().collect();
        let ask = |key: AppVersion| {
            let answer = ask(key.clone());
            async move { (answer.await, key) }
        };
        let answers: Vec<_> = stream::iter(unknown).map(ask).buffer_unordered(AT_ONCE).collect().await;
        let mut trouble = None;
        for (answer, key) in answers {
            trouble = trouble.or(self.note(key, answer));
        }
        match trouble {
            Some(failure) => Err(failure),
            None => Ok(self.0.iter().map(|(key, entry)| (key.clone(), entry.result())).collect()),
        }
    }

    fn must_ask(&self, key: &AppVersion) -> bool {
        match self.0.get(key) {
            None | Some(Entry::Failing { .. }) => true,
            Some(Entry::Known(_)) => false,
            Some(Entry::Missing { asked, .. }) => asked.elapsed() >= MISSING,
        }
    }

    /// Remembers an answer; gives back a failure that is reason to try again.
    fn note(&mut self, key: AppVersion, answer: Result<T, Failure>) -> Option<Failure> {
        let before = self.0.get(&key);
        let failures = match before {
            Some(Entry::Failing { failures }) => *failures,
            Some(Entry::Missing { .. }) => PATIENCE,
            Some(Entry::Known(_)) | None => 0,
        };
        let (entry, trouble) = match answer {
            Ok(it) => (Entry::Known(Arc::new(it)), None),
            Err(failure) if failure.not_found || failures + 1 >= PATIENCE => {
                (Entry::Missing { reason: failure.to_string(), asked: Instant::now() }, None)
            }
            Err(failure) => (Entry::Failing { failures: failures + 1 }, Some(failure)),
        };
        self.0.insert(key, entry);
        trouble
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
        Failure { url: "http://h".into(), what: "failed".into(), not_found: missing }
    }

    #[test]
    fn a_definition_that_keeps_failing_holds_the_rest_up_only_so_long() {
        let (mut versions, key) = (DefinitionCache::<u8>::default(), ("/a".to_owned(), "v".to_owned()));
        for _ in 1..PATIENCE {
            assert!(versions.must_ask(&key));
            assert_eq!(versions.note(key.clone(), Err(failure(false))), Some(failure(false)));
        }
        assert_eq!(versions.note(key.clone(), Err(failure(false))), None);
        assert!(!versions.must_ask(&key));
        assert!(versions.0[&key].result().is_err());
        assert_eq!(versions.note(key.clone(), Ok(7)), None);
        assert!(versions.0[&key].result().is_ok() && !versions.must_ask(&key));
    }

    #[test]
    fn one_that_is_gone_is_said_at_once() {
        let (mut versions, key) = (DefinitionCache::<u8>::default(), ("/a".to_owned(), "v".to_owned()));
        assert_eq!(versions.note(key.clone(), Err(failure(true))), None);
        assert_eq!(versions.0[&key].result().unwrap_err(), "http://h failed");
        assert!(!versions.must_ask(&key));
    }
}
