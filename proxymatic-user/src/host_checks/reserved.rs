//! `--reserve-ports`: keeps service ports from sockets that request no port, and releases them again.
//!
//! A file beside the agent's socket records which ports the agent reserved, so that it never releases the operator's.
//! Both the file and the sysctl are gone after a reboot. A port that is reserved already is the operator's.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::ports::{PortSet, RANGE, RESERVED};

/// The ports that the agent reserved in the network namespace of this process.
#[derive(Debug)]
pub struct Reserved {
    record: PathBuf,
    setting: PathBuf,
    range: PathBuf,
}

/// What to write: the agent's ports, and all reserved ports.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    ours: PortSet,
    all: PortSet,
}

/// Returns what to write so that the service ports are reserved, from the reserved ports and the agent's among them.
fn plan_change(services: &PortSet, range: &str, all: &PortSet, ours: &PortSet) -> Change {
    let theirs = all.difference(ours);
    let wanted = services.in_range(range).difference(&theirs);
    Change { all: theirs.union(&wanted), ours: wanted }
}

impl Reserved {
    /// Uses this file to record the agent's ports.
    pub fn new(record: PathBuf) -> Self {
        Self { record, setting: RESERVED.into(), range: RANGE.into() }
    }

    /// Reserves ports in addition to those that are reserved already.
    ///
    /// # Errors
    /// The reason and the remedy, in one sentence.
    pub fn add(&self, ports: &PortSet) -> Result<(), String> {
        let ours = PortSet::parse(&fs::read_to_string(&self.record).unwrap_or_default());
        self.reserve(&ours.union(ports))
    }

    /// Reserves exactly these service ports, in addition to those of the operator.
    ///
    /// # Errors
    /// The reason and the remedy, in one sentence.
    pub fn reserve(&self, services: &PortSet) -> Result<(), String> {
        let ours = PortSet::parse(&fs::read_to_string(&self.record).unwrap_or_default());
        if services.is_empty() && ours.is_empty() {
            return Ok(());
        }
        let range = fs::read_to_string(&self.range).unwrap_or_default();
        let failed = |path: &Path, error: &io::Error| {
            format!(
                "cannot reserve or release ports {}: {}: {error}; make it writable to the agent (its container with \
                 --privileged), or start without --reserve-ports and --interface",
                services.in_range(&range).union(&ours),
                path.display()
            )
        };
        let all = fs::read_to_string(&self.setting).map_err(|error| failed(&self.setting, &error))?;
        let all = PortSet::parse(&all);
        let change = plan_change(services, &range, &all, &ours);
        let write_record = |ports: &PortSet| {
            let written = if ports.is_empty() {
                remove_if_exists(&self.record)
            } else {
                fs::write(&self.record, format!("{ports}\n"))
            };
            written.map_err(|error| failed(&self.record, &error))
        };
        // Recorded first, so that after a crash here no port of the agent is taken for the operator's.
        let both = change.ours.union(&ours);
        if both != ours {
            write_record(&both)?;
        }
        if change.all != all {
            // The kernel parses one page for each write, and adds further writes to the same open file.
            let text = format!("{}\n", change.all);
            let written = File::create(&self.setting).and_then(|mut file| file.write_all(text.as_bytes()));
            written.map_err(|error| failed(&self.setting, &error))?;
            tracing::info!("reserved ports are now {}", change.all);
        }
        if change.ours != both { write_record(&change.ours) } else { Ok(()) }
    }
}

fn remove_if_exists(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Releases all ports that the agent reserved.
///
/// # Errors
/// The reason and the remedy, in one sentence.
pub fn give_back(record: &Path) -> Result<(), String> {
    Reserved::new(record.to_owned()).reserve(&PortSet::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> PortSet {
        PortSet::parse(text)
    }

    #[test]
    fn service_ports_are_added_and_only_the_agents_removed() {
        let at_first = plan_change(&set("80,40000,40001"), "32768 60999", &set("40001,50000"), &set(""));
        assert_eq!(at_first, Change { ours: set("40000"), all: set("40000-40001,50000") });
        let later = plan_change(&set("41000"), "32768 60999", &at_first.all, &at_first.ours);
        assert_eq!(later, Change { ours: set("41000"), all: set("40001,41000,50000") });
        let at_last = plan_change(&set(""), "32768 60999", &later.all, &later.ours);
        assert_eq!(at_last, Change { ours: set(""), all: set("40001,50000") });
    }

    #[test]
    fn port_that_another_program_removed_is_reserved_again() {
        let again = plan_change(&set("40000"), "32768 60999", &set(""), &set("40000"));
        assert_eq!(again, Change { ours: set("40000"), all: set("40000") });
    }

    #[test]
    fn file_records_the_agents_ports_and_is_removed_with_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let (record, setting, range) = (folder.path().join("a"), folder.path().join("b"), folder.path().join("c"));
        fs::write(&setting, "50000\n").unwrap();
        fs::write(&range, "32768\t60999\n").unwrap();
        let reserved = Reserved { record: record.clone(), setting: setting.clone(), range };
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        reserved.reserve(&set("40000-40002")).unwrap();
        assert_eq!((read(&record), read(&setting)), ("40000-40002\n".into(), "40000-40002,50000\n".into()));
        reserved.reserve(&set("40001,50000")).unwrap();
        assert_eq!((read(&record), read(&setting)), ("40001\n".into(), "40001,50000\n".into()));
        reserved.reserve(&set("")).unwrap();
        assert_eq!((record.exists(), read(&setting)), (false, "50000\n".into()));
        reserved.reserve(&set("40000")).unwrap();
        reserved.add(&set("41000")).unwrap();
        assert_eq!((read(&record), read(&setting)), ("40000,41000\n".into(), "40000,41000,50000\n".into()));
        reserved.reserve(&set("")).unwrap();
        let lost = Reserved { setting: folder.path().join("no/where"), ..reserved };
        let said = lost.reserve(&set("40000")).unwrap_err();
        assert!(said.starts_with("cannot reserve or release ports 40000: ") && said.contains("no/where"), "{said}");
    }
}
