//! Single facts from the output of commands, for tests.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::host::Host;

impl Host {
    /// Returns the output of `proxymatic -j status` here, with or without problems.
    pub fn status(&self) -> Result<Value> {
        let left = self.proxymatic(&["-j", "status"])?;
        serde_json::from_str(&left.stdout).with_context(|| format!("status printed {left:?}"))
    }

    /// Returns the status if it reports a source's failure with these words: at the source, among the problems, and by
    /// exit code 1.
    pub fn trouble(&self, words: &str) -> Result<Value> {
        let left = self.proxymatic(&["-j", "status"])?;
        let status: Value = serde_json::from_str(&left.stdout).with_context(|| format!("status printed {left:?}"))?;
        let reason = status["agent"]["sources"][0]["trouble"]["reason"].as_str().unwrap_or_default();
        ensure!(!reason.is_empty() && reason.contains(words), "{words:?} in {status}");
        let wrong = status["problems"].as_array().into_iter().flatten().filter_map(Value::as_str);
        ensure!(wrong.into_iter().any(|line| line.ends_with(reason)), "{reason:?} in what is wrong: {status}");
        ensure!(left.status.code() == Some(1), "{left:?}");
        Ok(status)
    }

    /// Returns the status if it has no problem and no warning.
    pub fn well(&self) -> Result<Value> {
        let left = self.proxymatic(&["-j", "status"])?;
        let status: Value = serde_json::from_str(&left.stdout).with_context(|| format!("status printed {left:?}"))?;
        let nothing = |part: &str| status[part].as_array().is_some_and(Vec::is_empty);
        ensure!(nothing("problems") && nothing("warnings") && left.status.success(), "{left:?}");
        Ok(status)
    }

    /// Returns how often the hooks here have counted a verdict.
    pub fn verdict(&self, name: &str) -> Result<u64> {
        let status = self.status()?;
        status["verdicts"][name].as_u64().with_context(|| format!("no verdict {name} in {status}"))
    }

    /// Returns the counts of all verdicts.
    pub fn verdicts(&self) -> Result<Value> {
        Ok(self.status()?["verdicts"].take())
    }

    /// Returns the number of connections counted as open, over all services.
    pub fn open_connections(&self) -> Result<u64> {
        let services = self.services()?;
        Ok(services.iter().flat_map(|service| &service.backends).map(|backend| backend.active).sum())
    }
}
