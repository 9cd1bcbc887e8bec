//! The configured sources of an agent.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use tokio::sync::mpsc;

use super::{Source, id::SourceId, report::Report};
use crate::model::Snapshot;

/// The configured sources, at most one of each kind.
#[derive(Debug, Default)]
pub struct Sources(Vec<Box<dyn Source>>);

impl Sources {
    /// Adds a source.
    pub fn add(&mut self, source: impl Source + 'static) {
        self.0.push(Box::new(source));
    }

    /// Returns the ids of the sources, in order.
    pub fn ids(&self) -> Vec<SourceId> {
        let mut ids: Vec<_> = self.0.iter().map(|source| source.id()).collect();
        ids.sort_unstable();
        ids
    }

    /// Returns whether there is a source of this id.
    pub fn has(&self, id: SourceId) -> bool {
        self.0.iter().any(|source| source.id() == id)
    }

    /// Returns the [locations](Source::locations) of each source.
    pub fn locations(&self) -> BTreeMap<SourceId, BTreeSet<String>> {
        self.0.iter().map(|source| (source.id(), source.locations())).collect()
    }

    /// Sets the services that an earlier agent published from each source.
    pub fn set_adopted(&mut self, adopted: impl Fn(SourceId) -> Snapshot) {
        for source in &mut self.0 {
            let id = source.id();
            source.set_adopted(adopted(id));
        }
    }

    /// Sets the services that this host serves from each source.
    pub fn set_served(&mut self, served: impl Fn(SourceId) -> Snapshot) {
        for source in &mut self.0 {
            let id = source.id();
            source.set_served(served(id));
        }
    }

    /// Starts all sources on the current runtime. Each ends after the receiver of the reports is dropped.
    pub fn start(self, reports: &mpsc::Sender<Report>) {
        for source in self.0 {
            tokio::spawn(source.run(reports.clone()));
        }
    }
}

impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&all.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, path::Path, time::Duration};

    use super::*;
    use crate::source::{file, marathon, registrator};

    #[test]
    fn locations_identify_sources_and_show_no_secret() {
        let minute = Duration::from_secs(60);
        let mut sources = Sources::default();
        let urls = ["http://me:secret@m1:8080,https://m2/marathon/"];
        sources.add(marathon::Config::new(&urls, minute, NonZeroU32::MIN).unwrap());
        sources.add(registrator::Config::new("etcd://me:secret@e1,e2:4001/services", minute).unwrap());
        sources.add(file::Config::new(Path::new("/etc/services.toml")).unwrap());
        let shown: Vec<_> = sources.locations().into_iter().map(|(id, urls)| format!("{id} {urls:?}")).collect();
        assert_eq!(
            shown,
            [
                r#"registrator {"http://e1:2379/services", "http://e2:4001/services"}"#,
                r#"marathon {"http://m1:8080", "https://m2/marathon"}"#,
                r#"file {"/etc/services.toml"}"#,
            ]
        );
        assert_eq!(
            sources.to_string(),
            "http://m1:8080, https://m2/marathon, etcd://e1:2379,e2:4001/services, /etc/services.toml"
        );
        assert_eq!(sources.ids(), SourceId::ALL);
    }
}
