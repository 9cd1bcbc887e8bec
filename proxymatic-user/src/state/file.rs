//! The state file: read once at the start, replaced as a whole, and renamed to `*.aside-<seconds>` if it is invalid.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use atomic_write_file::{AtomicWriteFile, unix::OpenOptionsExt as _};

use super::{Damage, MOST, State, decode, encode};
use crate::source::SourceId;

/// The number of renamed invalid files to keep.
const ASIDE: usize = 3;

/// The path of the state file, and the sources of this agent.
#[derive(Clone, Debug)]
pub struct StateFile {
    path: PathBuf,
    /// The URLs or paths of each source, see [`super::Saved::of`].
    of: BTreeMap<SourceId, BTreeSet<String>>,
}

/// The result of reading the file at the start.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The last answers of this agent's sources, as far as the file has them.
    pub state: State,
    /// The problem with the file, as one sentence.
    pub trouble: Option<String>,
}

impl StateFile {
    /// Makes the state file at `path` for these sources.
    pub const fn new(path: PathBuf, of: BTreeMap<SourceId, BTreeSet<String>>) -> Self {
        Self { path, of }
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn identity(&self, source: SourceId) -> BTreeSet<String> {
        self.of.get(&source).cloned().unwrap_or_default()
    }

    /// Reads the file, and renames it if it is invalid. `now` is part of the new name.
    pub fn load(&self, now: SystemTime) -> Loaded {
        let path = self.path.display();
        let bytes = match read_bounded(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Loaded::default(),
            Err(error) => {
                let trouble = format!("--state-file {path} cannot be read: {error}; the agent starts without it");
                return Loaded { trouble: Some(trouble), ..Loaded::default() };
            }
        };
        match decode(&bytes) {
            Ok(state) => self.keep_own(state, now),
            Err(damage) => self.reject(&damage.to_string(), now),
        }
    }

    /// Keeps the answers of this agent's sources only.
    fn keep_own(&self, mut state: State, now: SystemTime) -> Loaded {
        let mut others = Vec::new();
        state.sources.retain(|source, saved| {
            let own = self.of.get(source).is_some_and(|of| !of.is_disjoint(&saved.of));
            if !own {
                others.push(format!("{source} at {}", list(&saved.of)));
            }
            own
        });
        if others.is_empty() {
            return Loaded { state, trouble: None };
        }
        let expected: Vec<_> = self.of.iter().map(|(source, of)| format!("{source} at {}", list(of))).collect();
        let reason =
            format!("it has the answers of {}, but this agent reads {}", others.join(", "), expected.join(", "));
        if state.sources.is_empty() {
            return self.reject(&reason, now);
        }
        // A source was removed or moved. The rest of the file is still valid.
        tracing::info!("--state-file {}: {reason}; the others are left out", self.path.display());
        Loaded { state, trouble: None }
    }

    /// Renames the file, so that an operator can look at it.
    fn reject(&self, reason: &str, now: SystemTime) -> Loaded {
        let path = self.path.display();
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let aside = self.path.with_added_extension(format!("aside-{seconds}"));
        let outcome = match fs::rename(&self.path, &aside) {
            Ok(()) => format!("it was renamed to {}", aside.display()),
            Err(error) => format!("it cannot be renamed ({error}), so the agent will replace it"),
        };
        self.remove_old();
        let trouble = format!("--state-file {path} is not used: {reason}; {outcome}, and the agent starts without it");
        Loaded { trouble: Some(trouble), ..Loaded::default() }
    }

    /// Removes all renamed files except the newest ones.
    fn remove_old(&self) {
        let (Some(folder), Some(name)) = (self.path.parent(), self.path.file_name()) else { return };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let prefix = format!("{}.aside-", name.to_string_lossy());
        let time = |path: &Path| path.file_name()?.to_str()?.strip_prefix(&prefix)?.parse::<u64>().ok();
        let Ok(entries) = fs::read_dir(folder) else { return };
        let mut aside: Vec<_> =
            entries.flatten().map(|entry| entry.path()).filter_map(|it| Some((time(&it)?, it))).collect();
        aside.sort_unstable();
        for (_, old) in aside.iter().rev().skip(ASIDE) {
            if let Err(error) = fs::remove_file(old) {
                tracing::warn!("cannot remove {}: {error}", old.display());
            }
        }
    }

    /// Replaces the file atomically: after a crash of the machine it is the old one or the new one. Only its owner can
    /// read it.
    ///
    /// # Errors
    /// The reason as one sentence; the old file is still there.
    pub fn write(&self, state: &State) -> Result<(), String> {
        let path = self.path.display();
        let failed = |reason: &dyn std::fmt::Display, remedy| {
            format!(
                "--state-file {path} cannot be written: {reason}; {remedy}; otherwise services stay unavailable after a reboot until their sources answer"
            )
        };
        let bytes = encode(state).map_err(|damage: Damage| failed(&damage, "serve fewer services"))?;
        self.replace(&bytes)
            .map_err(|error| failed(&error, "make space and grant write permission there, or choose another path"))
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        // Only the last folder is created: a missing parent may be a volume that is not mounted.
        if let Some(folder) = self.path.parent()
            && !folder.as_os_str().is_empty()
            && let Err(error) = fs::create_dir(folder)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(error);
        }
        let mut options = AtomicWriteFile::options();
        options.mode(0o600).preserve_mode(false).preserve_owner(false);
        let mut file = options.open(&self.path)?;
        file.write_all(bytes)?;
        // fsync of the file, rename, fsync of the folder.
        file.commit()
    }
}

fn list(of: &BTreeSet<String>) -> String {
    of.iter().map(String::as_str).collect::<Vec<_>>().join(" or ")
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    // Reading anything else, such as a FIFO, could block for ever.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
