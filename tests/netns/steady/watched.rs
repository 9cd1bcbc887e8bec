//! A service under load that never stops: what lives stays active at every look, and no connect fails.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use anyhow::{Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Load, PATIENCE};
use serde_json::Value;

use crate::served::{APP, Served, URL};

/// How many connects each state of things gets, at least.
const SOME: u64 = 200;

/// A service, its clients, and which of its replicas live.
pub(crate) struct Watched<'lab> {
    web: Served<'lab>,
    load: Load,
    live: Vec<usize>,
}

impl<'lab> Watched<'lab> {
    /// Waits until all replicas are active, and lets clients loose on them. All of them live.
    pub(crate) fn start(web: Served<'lab>) -> Result<Self> {
        let live: Vec<_> = (0..web.replicas.len()).collect();
        web.when_active(&live)?;
        let load = web.lab.load(URL, &["--threads", "2", "--linger0"])?;
        Ok(Self { web, load, live })
    }

    /// From now on these live, and may be expected to be active.
    pub(crate) fn live(&mut self, which: &[usize]) {
        self.live = which.into();
    }

    /// Looks until there is a fact; fails at once where a live backend is not active or a connect has failed.
    pub(crate) fn until<T>(&self, what: &str, within: Duration, mut fact: impl FnMut() -> Result<T>) -> Result<T> {
        let fact = eventually_ok(what, within, || match self.nothing_is_lost() {
            Ok(()) => fact().map(Ok),
            Err(lost) => Ok(Err(lost.context(format!("while waiting until {what}")))),
        })??;
        self.load.reaches(SOME)?;
        Ok(fact)
    }

    /// Waits until the status tells of trouble in these words.
    pub(crate) fn says(&self, words: &str, within: Duration) -> Result<Value> {
        self.until(&format!("the status says {words:?}"), within, || self.lab.host(1).trouble(words))
    }

    /// Waits until the status complains of the app in these words.
    pub(crate) fn complains(&self, words: &str) -> Result<()> {
        self.until(&format!("there is a complaint of {words:?}"), PATIENCE, || {
            let status = self.lab.host(1).status()?;
            let mut complaints = status["complaints"].as_array().into_iter().flatten();
            let is = |it: &Value| it["app"] == APP && it["reason"].as_str().is_some_and(|text| text.contains(words));
            ensure!(complaints.any(is), "{status}");
            Ok(())
        })
    }

    /// Waits until the status has nothing to complain about.
    pub(crate) fn is_well(&self, within: Duration) -> Result<Value> {
        let status = self.until("all is well", within, || self.lab.host(1).well())?;
        // What made it well may be what lost them.
        self.nothing_is_lost()?;
        Ok(status)
    }

    /// Fails unless exactly these replicas are active.
    pub(crate) fn active(&self, which: &[usize]) -> Result<()> {
        let service = self.lab.host(1).service(APP)?;
        let all = which.iter().all(|nth| service.is_active(self.replicas[*nth].address));
        ensure!(all && service.active().count() == which.len(), "{service:?}");
        Ok(())
    }

    /// Waits for that.
    pub(crate) fn serves(&self, which: &[usize]) -> Result<()> {
        self.until(&format!("replicas {which:?} are active, and no others"), PATIENCE, || self.active(which))
    }

    /// Ends the load: every connect has been answered, and all that live have answered some.
    pub(crate) fn end(self) -> TestResult {
        self.nothing_is_lost()?;
        let seen = self.load.finish()?;
        assert_eq!(seen.failed, 0, "{seen:?}");
        for nth in self.live {
            let name = char::from(b'a' + u8::try_from(nth)?).to_string();
            assert!(seen.by_replica.contains_key(&name), "{name} in {seen:?}");
        }
        Ok(())
    }

    fn nothing_is_lost(&self) -> Result<()> {
        let (seen, service) = (self.load.so_far()?, self.lab.host(1).service(APP)?);
        ensure!(seen.failed == 0, "connects have failed: {seen:?}");
        for nth in &self.live {
            let address = self.replicas[*nth].address;
            ensure!(service.is_active(address), "{address} lives and is not active: {service:?}");
        }
        Ok(())
    }
}

impl<'lab> Deref for Watched<'lab> {
    type Target = Served<'lab>;

    fn deref(&self) -> &Self::Target {
        &self.web
    }
}

impl DerefMut for Watched<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.web
    }
}
