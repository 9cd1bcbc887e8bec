//! A service under constant load: live replicas stay active, by every status and every log line, and no connect fails.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use anyhow::{Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Load, PATIENCE};
use serde_json::Value;

use crate::fixtures::cluster::{APP, Cluster, URL};

/// The least number of connects for each state.
const SOME: u64 = 200;

/// A service, its clients, and its live replicas.
pub(crate) struct LoadedService<'lab> {
    web: Cluster<'lab>,
    load: Load,
    live: Vec<usize>,
    /// How many bytes of the agent's log were checked.
    judged: Cell<usize>,
}

impl<'lab> LoadedService<'lab> {
    /// Waits until all replicas are active, and starts the clients. All replicas are live.
    pub(crate) fn start(web: Cluster<'lab>) -> Result<Self> {
        let live: Vec<_> = (0..web.replicas.len()).collect();
        web.when_active(&live)?;
        let load = web.lab.load(URL, &["--threads", "2", "--linger0"])?;
        let judged = web.agent.stderr()?.len().into();
        Ok(Self { web, load, live, judged })
    }

    /// Sets the live replicas, which may be expected to be active. To be called before the others change.
    pub(crate) fn live(&mut self, which: &[usize]) -> Result<()> {
        self.log_has_no_loss()?;
        self.live = which.into();
        Ok(())
    }

    /// Kills the agent.
    pub(crate) fn crash(&mut self) -> Result<()> {
        self.web.agent.kill9()?;
        self.log_has_no_loss()
    }

    /// Starts another agent, with a log of its own.
    pub(crate) fn start_another(&mut self) -> Result<()> {
        self.web.agent = self.web.lab.agent(&[])?;
        self.judged.set(0);
        Ok(())
    }

    /// Polls until a condition holds; fails at once if a live backend is not active or a connect has failed.
    pub(crate) fn until<T>(&self, what: &str, within: Duration, mut fact: impl FnMut() -> Result<T>) -> Result<T> {
        let fact = eventually_ok(what, within, || match self.nothing_is_lost() {
            Ok(()) => fact().map(Ok),
            Err(lost) => Ok(Err(lost.context(format!("while waiting until {what}")))),
        })??;
        self.load.reaches(SOME)?;
        Ok(fact)
    }

    /// Waits until the status reports a failure with these words.
    pub(crate) fn says(&self, words: &str, within: Duration) -> Result<Value> {
        self.until(&format!("the status says {words:?}"), within, || self.lab.host(1).trouble(words))
    }

    /// Waits until the agent has logged these words this many times: the status might show them for a second only.
    pub(crate) fn logs(&self, words: &str, times: usize, within: Duration) -> Result<()> {
        self.until(&format!("the agent logs {words:?}"), within, || {
            let now = self.agent.logged(words)?;
            ensure!(now >= times, "{now} times");
            Ok(())
        })
    }

    /// Fails unless the agent has last logged the first words before the others.
    pub(crate) fn logged_in_order(&self, first: &str, then: &str) -> Result<()> {
        let log = self.agent.stderr()?;
        let places = (log.rfind(first), log.rfind(then));
        ensure!(matches!(places, (Some(first), Some(then)) if first < then), "{first:?}, then {then:?} in {log}");
        Ok(())
    }

    /// Waits until the status has no warnings.
    pub(crate) fn is_well(&self, within: Duration) -> Result<Value> {
        let status = self.until("all is well", within, || self.lab.host(1).well())?;
        // The same change may have ended the warning and lost the replicas.
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

    /// Waits until exactly these replicas are active.
    pub(crate) fn serves(&self, which: &[usize]) -> Result<()> {
        self.until(&format!("replicas {which:?} are active, and no others"), PATIENCE, || self.active(which))
    }

    /// Ends the load: every connect was answered, and each live replica has answered some.
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
        self.log_has_no_loss()?;
        let (seen, service) = (self.load.so_far()?, self.lab.host(1).service(APP)?);
        ensure!(seen.failed == 0, "connects have failed: {seen:?}");
        for nth in &self.live {
            let address = self.replicas[*nth].address;
            ensure!(service.is_active(address), "{address} lives and is not active: {service:?}");
        }
        Ok(())
    }
}

impl LoadedService<'_> {
    /// Fails if, by the new lines of its log, the agent has read the service without a live replica.
    fn log_has_no_loss(&self) -> Result<()> {
        let log = self.agent.stderr()?;
        // The last line may be incomplete.
        let whole = log.rfind('\n').map_or(0, |it| it + 1);
        for line in
            log[self.judged.replace(whole)..whole].lines().filter(|line| line.contains(&format!("service={APP:?}")))
        {
            for nth in &self.live {
                let active = format!("{} active", self.replicas[*nth].address);
                let (is, was) = (field(line, "is"), field(line, "was"));
                // A change lists added and removed backends; a new agent lists all.
                let is_lost = match (is, was) {
                    (Some(is), None) => !is.contains(&active),
                    (is, Some(was)) => was.contains(&active) && !is.unwrap_or_default().contains(&active),
                    (None, None) => false,
                };
                ensure!(!is_lost, "{active} and lives, and is not in {line}");
            }
        }
        Ok(())
    }
}

/// Returns the value of a field in a log line.
fn field<'line>(line: &'line str, name: &str) -> Option<&'line str> {
    line.split_once(&format!(" {name}=\""))?.1.split('"').next()
}

impl<'lab> Deref for LoadedService<'lab> {
    type Target = Cluster<'lab>;

    fn deref(&self) -> &Self::Target {
        &self.web
    }
}

impl DerefMut for LoadedService<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.web
    }
}
