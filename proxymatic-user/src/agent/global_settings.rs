//! Settings from the command line that hold for all services.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    model::{Settings, Warning},
    plan::{Desired, Exposed},
};

/// Settings from the command line that hold for all services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GlobalSettings {
    /// The maxconn of services that have none of their own; 0 for no limit.
    pub max_connections: u32,
    /// The paths of cgroups whose programs are bypassed.
    pub excluded: BTreeSet<String>,
    /// Which services remote clients may use.
    pub exposed: Exposed,
}

impl GlobalSettings {
    /// Returns the ids of the existing cgroups that these settings or allow lists of `services` name, by path.
    pub(crate) fn cgroups<'a>(
        &'a self,
        services: impl Iterator<Item = &'a Settings>,
        id: impl Fn(&str) -> Option<u64>,
    ) -> BTreeMap<String, u64> {
        let paths: BTreeSet<&str> =
            services.flat_map(Settings::cgroups).chain(self.excluded.iter().map(String::as_str)).collect();
        paths.into_iter().filter_map(|path| Some((path.to_owned(), id(path)?))).collect()
    }

    /// Applies the settings to the desired state. Returns warnings about cgroups that do not exist.
    pub(super) fn apply(&self, desired: &mut Desired, cgroups: BTreeMap<String, u64>) -> Vec<Warning> {
        desired.max_connections = self.max_connections;
        desired.exposed = self.exposed;
        desired.excluded = self.excluded.iter().filter_map(|path| cgroups.get(path).copied()).collect();
        let missing = self.excluded.iter().filter(|path| !cgroups.contains_key(*path));
        let warning = |path: &String| {
            let reason = format!("--exclude-cgroup {path} does not exist, so it excludes nothing; check the path");
            Warning { app: "excluded cgroups".into(), reason }
        };
        let warnings = missing.map(warning).collect();
        desired.cgroups = cgroups;
        warnings
    }
}
