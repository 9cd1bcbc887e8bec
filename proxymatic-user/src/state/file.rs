//! The file itself: read once at the start, replaced as a whole, and put aside where it is no good.

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

/// How many files that were put aside stay.
const ASIDE: usize = 3;

/// Where the state is kept, and of which sources.
#[derive(Clone, Debug)]
pub struct StateFile {
    path: PathBuf,
    /// Where each source is, see [`super::Saved::of`].
    of: BTreeMap<SourceId, BTreeSet<String>>,
}

/// What a start finds.
#[derive(Debug, Default)]
pub struct Loaded {
    /// What the sources of this agent said last, as far as the file has it.
    pub state: State,
    /// What is wrong with the file: one sentence.
    pub trouble: Option<String>,
}

impl StateFile {
    /// The state of these sources is kept there.
    pub const fn new(path: PathBuf, of: BTreeMap<SourceId, BTreeSet<String>>) -> Self {
        Self { path, of }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn identity(&self, source: SourceId) -> BTreeSet<String> {
        self.of.get(&source).cloned().unwrap_or_default()
    }

    /// Reads it, and puts it aside where it is no good. `now` names the file that is put aside.
    pub fn load(&self, now: SystemTime) -> Loaded {
        let path = self.path.display();
        let bytes = match whole(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Loaded::default(),
            Err(error) => {
                let trouble = format!("--state-file {path} cannot be read: {error}; the agent starts without it");
                return Loaded { trouble: Some(trouble), ..Loaded::default() };
            }
        };
        match decode(&bytes) {
            Ok(state) => self.own(state, now),
            Err(damage) => self.refuse(&damage.to_string(), now),
        }
    }

    /// What is of this agent's sources.
    fn own(&self, mut state: State, now: SystemTime) -> Loaded {
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
        let mine: Vec<_> = self.of.iter().map(|(source, of)| format!("{source} at {}", list(of))).collect();
        let reason = format!("it has what was said by {}, and this agent asks {}", others.join(", "), mine.join(", "));
        if state.sources.is_empty() {
            return self.refuse(&reason, now);
        }
        // A source was taken away or moved. The file goes on without it.
        tracing::info!("--state-file {}: {reason}; that is left out", self.path.display());
        Loaded { state, trouble: None }
    }

    /// Puts it aside, so that whoever wants to know can look at it.
    fn refuse(&self, reason: &str, now: SystemTime) -> Loaded {
        let path = self.path.display();
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let aside = self.path.with_added_extension(format!("aside-{seconds}"));
        let done = match fs::rename(&self.path, &aside) {
            Ok(()) => format!("it was put aside as {}", aside.display()),
            Err(error) => format!("it cannot be put aside ({error}), so it will be replaced"),
        };
        self.forget_old();
        let trouble = format!("--state-file {path} is not used: {reason}; {done}, and the agent starts without it");
        Loaded { trouble: Some(trouble), ..Loaded::default() }
    }

    /// Removes all that was put aside but the newest.
    fn forget_old(&self) {
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

    /// Replaces it as a whole: whenever the machine dies, it is the old one or the new one. Only its owner can read it.
    ///
    /// # Errors
    /// One sentence; the old one is still there.
    pub fn write(&self, state: &State) -> Result<(), String> {
        let path = self.path.display();
        let failed = |reason: &dyn std::fmt::Display, remedy| {
            format!(
                "--state-file {path} cannot be written: {reason}; {remedy}, or services will not be back after a reboot before their sources are"
            )
        };
        let bytes = encode(state).map_err(|damage: Damage| failed(&damage, "serve less"))?;
        self.replace(&bytes).map_err(|error| failed(&error, "make room and rights there, or name another path"))
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        // The last folder only: that one further up is missing may be a volume that is not mounted.
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

fn whole(path: &Path) -> io::Result<Vec<u8>> {
    // Anything else could make us wait for ever.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
