//! Earlier definitions that tasks still run: they never change, so each is asked for once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};

use super::{client::Client, failure::Failure, read::AppVersion, wire::App};

/// How long a definition that Marathon does not have is not asked for again.
const MISSING: Duration = Duration::from_secs(60);
/// After so many failures in a row a definition is taken as missing: one that Marathon cannot give any more must not
/// keep everything else from being read.
const PATIENCE: u32 = 5;
/// How many are asked for at the same time.
const AT_ONCE: usize = 8;

/// The definitions that the last listing needed, and no others: so they are never more than there are tasks.
#[derive(Debug, Default)]
pub(super) struct Versions(BTreeMap<AppVersion, Entry>);

#[derive(Debug)]
enum Entry {
    Known(Arc<App>),
    Missing { reason: String, asked: Instant },
    Failing { failures: u32 },
}

impl Versions {
    /// The definitions, each with one sentence if Marathon does not have it. All others are forgotten.
    ///
    /// `Err` if one could not be asked for: then there may be such a definition, and the whole is tried again later.
    pub(super) async fn fetch(
        &mut self,
        client: &Client,
        wanted: &BTreeSet<AppVersion>,
    ) -> Result<BTreeMap<AppVersion, Result<Arc<App>, String>>, Failure> {
        self.0.retain(|key, _| wanted.contains(key));
        let unknown: Vec<_> = wanted.iter().filter(|key| self.must_ask(key)).cloned().collect();
        let ask = |key: AppVersion| async move { (client.definition(&key.0, &key.1).await, key) };
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
    fn note(&mut self, key: AppVersion, answer: Result<App, Failure>) -> Option<Failure> {
        let before = self.0.get(&key);
        let failures = match before {
            Some(Entry::Failing { failures }) => *failures,
            Some(Entry::Missing { .. }) => PATIENCE,
            Some(Entry::Known(_)) | None => 0,
        };
        let (entry, trouble) = match answer {
            Ok(app) => (Entry::Known(Arc::new(app)), None),
            Err(failure) if failure.missing || failures + 1 >= PATIENCE => {
                (Entry::Missing { reason: failure.to_string(), asked: Instant::now() }, None)
            }
            Err(failure) => (Entry::Failing { failures: failures + 1 }, Some(failure)),
        };
        self.0.insert(key, entry);
        trouble
    }
}

impl Entry {
    fn result(&self) -> Result<Arc<App>, String> {
        match self {
            Self::Known(app) => Ok(Arc::clone(app)),
            Self::Missing { reason, .. } => Err(reason.clone()),
            Self::Failing { failures } => Err(format!("it failed {failures} times")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(missing: bool) -> Failure {
        Failure { url: "http://h".into(), what: "failed".into(), missing }
    }

    #[test]
    fn a_definition_that_keeps_failing_holds_the_rest_up_only_so_long() {
        let (mut versions, key) = (Versions::default(), ("/a".to_owned(), "v".to_owned()));
        for _ in 1..PATIENCE {
            assert!(versions.must_ask(&key));
            assert_eq!(versions.note(key.clone(), Err(failure(false))), Some(failure(false)));
        }
        assert_eq!(versions.note(key.clone(), Err(failure(false))), None);
        assert!(!versions.must_ask(&key));
        assert!(versions.0[&key].result().is_err());
        assert_eq!(versions.note(key.clone(), Ok(App::default())), None);
        assert!(versions.0[&key].result().is_ok() && !versions.must_ask(&key));
    }

    #[test]
    fn one_that_is_gone_is_said_at_once() {
        let (mut versions, key) = (Versions::default(), ("/a".to_owned(), "v".to_owned()));
        assert_eq!(versions.note(key.clone(), Err(failure(true))), None);
        assert_eq!(versions.0[&key].result().unwrap_err(), "http://h failed");
        assert!(!versions.must_ask(&key));
    }
}
