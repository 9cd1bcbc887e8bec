//! The module graph of a crate: which module uses items of which other one, read from the sources.
//!
//! An edge leads to the module that defines what is used, through re-exports: a module that only re-exports is a facade and
//! is in nobody's way. Tests are left out. A method call has no path, so it makes no edge.

mod parse;
mod resolve;

use std::collections::{BTreeMap, BTreeSet};

use petgraph::{algo::tarjan_scc, graphmap::DiGraphMap};

pub(super) use self::parse::Source;
use self::{
    parse::{Module, Path},
    resolve::Crate,
};

/// Which modules a module uses, by the modules themselves.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Graph {
    edges: BTreeMap<Path, BTreeSet<Path>>,
}

impl Graph {
    /// Of a crate, from its files.
    ///
    /// # Errors
    /// A file does not parse; the text says which.
    pub(super) fn read(sources: &[Source]) -> Result<Self, String> {
        let modules = sources.iter().map(Module::parse).collect::<Result<Vec<_>, _>>()?;
        let whole = Crate::new(modules.into_iter().flatten());
        // A module inside a file belongs to that file: who opens the file sees both.
        let files: BTreeSet<&Path> = sources.iter().map(|source| &source.path).collect();
        let file = |path: &Path| {
            let lengths = (0..=path.len()).rev();
            lengths.map(|length| path[..length].to_vec()).find(|outer| files.contains(outer)).unwrap_or_default()
        };
        let mut edges: BTreeMap<Path, BTreeSet<Path>> = BTreeMap::new();
        for (from, to) in whole.edges() {
            let from = file(&from);
            let used = edges.entry(from.clone()).or_default();
            used.extend(to.iter().map(&file).filter(|to| *to != from));
        }
        Ok(Self { edges })
    }

    /// Groups of modules that use each other in a circle, each group sorted.
    pub(super) fn cycles(&self) -> Vec<Vec<String>> {
        let names: BTreeMap<&Path, String> = self.edges.keys().map(|path| (path, shown(path))).collect();
        let mut graph: DiGraphMap<&str, ()> = DiGraphMap::new();
        for (from, to) in &self.edges {
            for to in to {
                graph.add_edge(names[from].as_str(), names[to].as_str(), ());
            }
        }
        let mut cycles: Vec<Vec<String>> = tarjan_scc(&graph)
            .into_iter()
            .filter(|group| group.len() > 1)
            .map(|group| group.into_iter().map(str::to_owned).collect())
            .collect();
        cycles.iter_mut().for_each(|group| group.sort());
        cycles.sort();
        cycles
    }

    /// Which rooms each room uses: a room is the first part of a module's path.
    pub(super) fn rooms(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut rooms: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in &self.edges {
            let Some(from) = from.first() else { continue };
            let used = rooms.entry(from.clone()).or_default();
            used.extend(to.iter().filter_map(|to| to.first()).filter(|to| *to != from).cloned());
        }
        rooms
    }

    /// The edges inside a group of modules, one line each.
    pub(super) fn inside(&self, group: &[String]) -> Vec<String> {
        let is_inside = |path: &Path| group.contains(&shown(path));
        let from = self.edges.iter().filter(|(from, _)| is_inside(from));
        from.flat_map(|(from, to)| {
            let to = to.iter().filter(|to| is_inside(to));
            to.map(|to| format!("{} uses {}", shown(from), shown(to)))
        })
        .collect()
    }
}

/// A module as it is written in paths.
fn shown(path: &Path) -> String {
    if path.is_empty() { "crate".into() } else { path.join("::") }
}

#[cfg(test)]
mod tests;
