//! What the commands print, as far as tests ask for single facts of it.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Host;

impl Host {
    /// What `proxymatic -j status` says here, well or not.
    pub fn status(&self) -> Result<Value> {
        let left = self.proxymatic(&["-j", "status"])?;
        serde_json::from_str(&left.stdout).with_context(|| format!("status said {left:?}"))
    }

    /// The status, if it tells of trouble with a source in these words: with the source, in what is wrong, and by exit
    /// code 1.
    pub fn trouble(&self, words: &str) -> Result<Value> {
        let left = self.proxymatic(&["-j", "status"])?;
        let status: Value = serde_json::from_str(&left.stdout).with_context(|| format!("status said {left:?}"))?;
        let reason = status["agent"]["sources"][0]["trouble"]["reason"].as_str().unwrap_or_default();
        ensure!(!reason.is_empty() && reason.contains(words), "{words:?} in {status}");
        let wrong = status["problems"].as_array().into_iter().flatten().filter_map(Value::as_str);
        ensure!(wrong.into_iter().any(|line| line.ends_with(reason)), "{reason:?} in what is wrong: {status}");
        ensure!(left.status.code() == Some(1), "{left:?}");
        Ok(status)
    }

    /// The status, if nothing is wrong and nothing complained about.
    pub fn well(&self) -> Result<Value> {
        let left = self.proxymatic(&["-j", "status"])?;
        let status: Value = serde_json::from_str(&left.stdout).with_context(|| format!("status said {left:?}"))?;
        let nothing = |part: &str| status[part].as_array().is_some_and(Vec::is_empty);
        ensure!(nothing("problems") && nothing("warnings") && left.status.success(), "{left:?}");
        Ok(status)
    }

    /// How often the hooks here have given a verdict.
    pub fn verdict(&self, name: &str) -> Result<u64> {
        let status = self.status()?;
        status["verdicts"][name].as_u64().with_context(|| format!("no verdict {name} in {status}"))
    }

    /// How often they have given each verdict, all in one.
    pub fn verdicts(&self) -> Result<Value> {
        Ok(self.status()?["verdicts"].take())
    }

    /// Connections that are counted as open now, over all services.
    pub fn open_connections(&self) -> Result<u64> {
        let services = self.services()?;
        Ok(services.iter().flat_map(|service| &service.backends).map(|backend| backend.active).sum())
    }
}
