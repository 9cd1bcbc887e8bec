//! What the operator wishes for all services, whatever the sources say.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    model::{Settings, Warning},
    plan::{Desired, Exposed},
};

/// What the operator wishes for all services, whatever the sources say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GlobalSettings {
    /// The most connections open from this host at once to a service that does not say so itself; 0 for no bound.
    pub max_connections: u32,
    /// Cgroups whose programs are left alone, by path.
    pub excluded: BTreeSet<String>,
    /// Which services clients on other machines are served with.
    pub exposed: Exposed,
}

impl GlobalSettings {
    /// The ids of all cgroups that are named here or in allow lists, as far as they are there.
    pub(crate) fn cgroups<'a>(
        &'a self,
        services: impl Iterator<Item = &'a Settings>,
        id: impl Fn(&str) -> Option<u64>,
    ) -> BTreeMap<String, u64> {
        let paths: BTreeSet<&str> =
            services.flat_map(Settings::cgroups).chain(self.excluded.iter().map(String::as_str)).collect();
        paths.into_iter().filter_map(|path| Some((path.to_owned(), id(path)?))).collect()
    }

    /// Puts the wishes into what the maps should say. Gives those that cannot be followed.
    pub(crate) fn put(&self, desired: &mut Desired, cgroups: BTreeMap<String, u64>) -> Vec<Warning> {
        desired.max_connections = self.max_connections;
        desired.exposed = self.exposed;
        desired.excluded = self.excluded.iter().filter_map(|path| cgroups.get(path).copied()).collect();
        let missing = self.excluded.iter().filter(|path| !cgroups.contains_key(*path));
        let warning = |path: &String| {
            let reason =
                format!("--exclude-cgroup {path} is not there, so nothing is excluded by it; is the path right?");
            Warning { app: "excluded cgroups".into(), reason }
        };
        let warnings = missing.map(warning).collect();
        desired.cgroups = cgroups;
        warnings
    }
}
