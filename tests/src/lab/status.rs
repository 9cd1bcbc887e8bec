//! What the commands print, as far as tests ask for single facts of it.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Host;

impl Host {
    /// What `proxymatic -j status` says here, well or not.
    pub fn status(&self) -> Result<Value> {
        let left = self.proxymatic(&["-j", "status"])?;
        serde_json::from_str(&left.stdout).with_context(|| format!("status said {left:?}"))
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
