//! `--reserve-ports`: service ports are kept from sockets that ask for no port, and given back.
//!
//! Which ports are reserved by the agent is kept in a file beside its socket, so that those of the operator are never
//! given back. Both the file and the setting are gone after a reboot. A port that is reserved already is the operator's.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::ports::{PortSet, RANGE, RESERVED};

/// The ports that the agent has reserved in the network namespace of this process.
#[derive(Debug)]
pub struct Reserved {
    kept: PathBuf,
    setting: PathBuf,
    range: PathBuf,
}

/// What is to be written.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    ours: PortSet,
    all: PortSet,
}

/// What is to be reserved so that these service ports are: `all` there is, of which `ours` is the agent's.
fn change(services: &PortSet, range: &str, all: &PortSet, ours: &PortSet) -> Change {
    let theirs = all.without(ours);
    let wanted = services.within(range).without(&theirs);
    Change { all: theirs.and(&wanted), ours: wanted }
}

impl Reserved {
    /// With the file where it is kept what is the agent's.
    pub fn at(kept: PathBuf) -> Self {
        Self { kept, setting: RESERVED.into(), range: RANGE.into() }
    }

    /// Has these ports reserved beside those that are already.
    ///
    /// # Errors
    /// It cannot; one sentence with its remedy.
    pub fn add(&self, ports: &PortSet) -> Result<(), String> {
        let ours = PortSet::read(&fs::read_to_string(&self.kept).unwrap_or_default());
        self.keep(&ours.and(ports))
    }

    /// Has exactly these service ports reserved beside what others have reserved.
    ///
    /// # Errors
    /// It cannot; one sentence with its remedy.
    pub fn keep(&self, services: &PortSet) -> Result<(), String> {
        let ours = PortSet::read(&fs::read_to_string(&self.kept).unwrap_or_default());
        if services.is_empty() && ours.is_empty() {
            return Ok(());
        }
        let range = fs::read_to_string(&self.range).unwrap_or_default();
        let failed = |path: &Path, error: &io::Error| {
            format!(
                "ports {} cannot be reserved or given back: {}: {error}; make it writable to the agent (its container with \
                 --privileged), or do without --reserve-ports and --interface",
                services.within(&range).and(&ours),
                path.display()
            )
        };
        let all = fs::read_to_string(&self.setting).map_err(|error| failed(&self.setting, &error))?;
        let all = PortSet::read(&all);
        let change = change(services, &range, &all, &ours);
        let note = |ports: &PortSet| {
            let noted = if ports.is_empty() { absent(&self.kept) } else { fs::write(&self.kept, format!("{ports}\n")) };
            noted.map_err(|error| failed(&self.kept, &error))
        };
        // Should this be the end, what is noted is reserved or harmless, and nothing is taken for the operator's.
        let both = change.ours.and(&ours);
        if both != ours {
            note(&both)?;
        }
        if change.all != all {
            // The kernel takes a page at a time, and what follows on the same file adds to it.
            let text = format!("{}\n", change.all);
            let written = File::create(&self.setting).and_then(|mut file| file.write_all(text.as_bytes()));
            written.map_err(|error| failed(&self.setting, &error))?;
            tracing::info!("reserved ports are now {}", change.all);
        }
        if change.ours != both { note(&change.ours) } else { Ok(()) }
    }
}

fn absent(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Gives back all that the agent has reserved.
///
/// # Errors
/// It cannot; one sentence with its remedy.
pub fn give_back(kept: &Path) -> Result<(), String> {
    Reserved::at(kept.to_owned()).keep(&PortSet::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> PortSet {
        PortSet::read(text)
    }

    #[test]
    fn service_ports_join_what_is_reserved_and_only_the_agents_own_leave() {
        let at_first = change(&set("80,40000,40001"), "32768 60999", &set("40001,50000"), &set(""));
        assert_eq!(at_first, Change { ours: set("40000"), all: set("40000-40001,50000") });
        let later = change(&set("41000"), "32768 60999", &at_first.all, &at_first.ours);
        assert_eq!(later, Change { ours: set("41000"), all: set("40001,41000,50000") });
        let at_last = change(&set(""), "32768 60999", &later.all, &later.ours);
        assert_eq!(at_last, Change { ours: set(""), all: set("40001,50000") });
    }

    #[test]
    fn what_somebody_else_took_out_is_put_back_in_while_it_is_needed() {
        let again = change(&set("40000"), "32768 60999", &set(""), &set("40000"));
        assert_eq!(again, Change { ours: set("40000"), all: set("40000") });
    }

    #[test]
    fn the_note_says_what_is_the_agents_and_is_gone_when_nothing_is() {
        let folder = tempfile::tempdir().unwrap();
        let (kept, setting, range) = (folder.path().join("a"), folder.path().join("b"), folder.path().join("c"));
        fs::write(&setting, "50000\n").unwrap();
        fs::write(&range, "32768\t60999\n").unwrap();
        let reserved = Reserved { kept: kept.clone(), setting: setting.clone(), range };
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        reserved.keep(&set("40000-40002")).unwrap();
        assert_eq!((read(&kept), read(&setting)), ("40000-40002\n".into(), "40000-40002,50000\n".into()));
        reserved.keep(&set("40001,50000")).unwrap();
        assert_eq!((read(&kept), read(&setting)), ("40001\n".into(), "40001,50000\n".into()));
        reserved.keep(&set("")).unwrap();
        assert_eq!((kept.exists(), read(&setting)), (false, "50000\n".into()));
        reserved.keep(&set("40000")).unwrap();
        reserved.add(&set("41000")).unwrap();
        assert_eq!((read(&kept), read(&setting)), ("40000,41000\n".into(), "40000,41000,50000\n".into()));
        reserved.keep(&set("")).unwrap();
        let lost = Reserved { setting: folder.path().join("no/where"), ..reserved };
        let said = lost.keep(&set("40000")).unwrap_err();
        assert!(said.starts_with("ports 40000 cannot be reserved") && said.contains("no/where"), "{said}");
    }
}
