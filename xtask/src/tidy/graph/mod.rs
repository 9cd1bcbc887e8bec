//! The module graph of a crate: which module uses items of which other one, read from the sources.
//!
//! An edge ends at the module that defines the used item, so re-exports make no edge. Tests are left out. A method call has
//! no path, so it makes no edge either.

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
    /// Returns the graph of a crate, given its files.
    ///
    /// # Errors
    /// A file does not parse; the text says which.
    pub(super) fn read(sources: &[Source]) -> Result<Self, String> {
        let modules = sources.iter().map(Module::parse).collect::<Result<Vec<_>, _>>()?;
        let whole = Crate::new(modules.into_iter().flatten());
        // A module inside a file belongs to that file, because a reader of the file sees both.
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

    /// Returns the groups of modules that use each other in a circle, each group sorted.
    pub(super) fn cycles(&self) -> Vec<Vec<String>> {
        let edges = self.edges.iter().map(|(from, used)| (shown(from), used.iter().map(shown).collect()));
        cycles(&edges.collect())
    }

    /// Returns the groups of rooms that use each other in a circle, each group sorted.
    pub(super) fn room_cycles(&self) -> Vec<Vec<String>> {
        cycles(&self.rooms())
    }

    /// Returns which rooms each room uses. A room is the first part of a module's path.
    pub(super) fn rooms(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut rooms: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in &self.edges {
            let Some(from) = from.first() else { continue };
            let used = rooms.entry(from.clone()).or_default();
            used.extend(to.iter().filter_map(|to| to.first()).filter(|to| *to != from).cloned());
        }
        rooms
    }

    /// Returns the edges inside a group of modules, one line each.
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

/// Returns the strongly connected components of more than one node.
fn cycles(edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<String>> {
    let pairs = edges.iter().flat_map(|(from, used)| used.iter().map(|to| (from.as_str(), to.as_str(), ())));
    let graph: DiGraphMap<&str, ()> = DiGraphMap::from_edges(pairs);
    let groups = tarjan_scc(&graph).into_iter().filter(|group| group.len() > 1);
    let mut cycles: Vec<Vec<_>> = groups.map(|group| group.into_iter().map(str::to_owned).collect()).collect();
    cycles.iter_mut().for_each(|group| group.sort());
    cycles.sort();
    cycles
}

/// Returns a module as it is written in paths.
fn shown(path: &Path) -> String {
    if path.is_empty() { "crate".into() } else { path.join("::") }
}

#[cfg(test)]
mod tests;
