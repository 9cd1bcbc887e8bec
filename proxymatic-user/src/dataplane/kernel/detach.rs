//! Removes pins: those of an interrupted start, or all of them.

use std::fs;

use super::{Pins, hook_names::HOOKS, interfaces, pins::unpin_all};
use crate::dataplane::Error;

impl Pins {
    /// Removes the maps that an interrupted start left, which no hook uses and whose sizes may be wrong. Does nothing
    /// if a link is pinned, because then the maps hold services.
    ///
    /// # Errors
    /// Fails if a pin cannot be removed.
    pub(super) fn remove_orphans(&self) -> Result<(), Error> {
        if HOOKS.iter().any(|hook| self.link(hook).exists()) || self.serves_interfaces() {
            return Ok(());
        }
        let left = unpin_all(self.ours())?.len();
        if left > 0 {
            tracing::info!("removed {left} unused pins of an interrupted start");
        }
        Ok(())
    }

    /// Removes all pins of every map ABI version, and returns their paths and the removed clsact filters.
    ///
    /// Forward hooks go first: those of interfaces, then `connect` hooks. A pin of another version is removed only if its
    /// object has the name of the pin. A folder stays if another program has put something there.
    ///
    /// # Errors
    /// Fails if an agent has the lock, or if a pin or a filter cannot be removed.
    pub fn detach(&self) -> Result<Vec<String>, Error> {
        let others = self.other_versions();
        if !self.root.exists() && others.is_empty() {
            return Err(self.missing());
        }
        let _lock = self.lock()?;
        let mut removed = interfaces::remove_all(self)?;
        let mut pins = unpin_all(self.ours())?;
        self.remove_folders();
        for other in others {
            pins.extend(other.remove_all()?);
        }
        removed.extend(pins.iter().map(|path| path.display().to_string()));
        let _ = fs::remove_dir(self.bpffs());
        Ok(removed)
    }
}
