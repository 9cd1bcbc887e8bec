//! Resolves the paths that a module names to the modules that define those items.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use super::parse::{Module, Path};

/// How many re-exports are followed at most: imports that lead to each other would have no end.
const MOST_REEXPORTS: u32 = 8;

/// All modules of a crate.
#[derive(Debug)]
pub(super) struct Crate {
    modules: BTreeMap<Path, Module>,
}

impl Crate {
    pub(super) fn new(modules: impl Iterator<Item = Module>) -> Self {
        let mut whole: BTreeMap<Path, Module> = BTreeMap::new();
        for module in modules {
            match whole.entry(module.path.clone()) {
                Entry::Vacant(place) => drop(place.insert(module)),
                Entry::Occupied(mut earlier) => earlier.get_mut().merge(module),
            }
        }
        Self { modules: whole }
    }

    /// Which other modules each module uses.
    pub(super) fn edges(&self) -> BTreeMap<Path, BTreeSet<Path>> {
        let used = |module: &Module| {
            let named = module.named.iter().filter_map(|path| self.definition(module, path, MOST_REEXPORTS));
            named.filter(|to| *to != module.path).collect()
        };
        self.modules.iter().map(|(path, module)| (path.clone(), used(module))).collect()
    }

    /// The module that defines what a path means in a module; `None` if that is in another crate.
    fn definition(&self, from: &Module, path: &Path, reexports: u32) -> Option<Path> {
        let (first, mut rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => Path::new(),
            "self" => from.path.clone(),
            "super" => parent(&from.path)?,
            name => {
                let child = child(&from.path, name);
                if self.modules.contains_key(&child) {
                    child
                } else if let Some(import) = from.imports.get(name).filter(|import| *import != path) {
                    let whole = [import.as_slice(), rest].concat();
                    return self.definition(from, &whole, reexports.checked_sub(1)?);
                } else {
                    return None;
                }
            }
        };
        while let Some((name, behind)) = rest.split_first() {
            if name == "super" {
                at = parent(&at)?;
            } else {
                let child = child(&at, name);
                if !self.modules.contains_key(&child) {
                    return Some(self.item(at, name, behind, reexports));
                }
                at = child;
            }
            rest = behind;
        }
        Some(at)
    }

    /// The module that defines an item that a module offers.
    fn item(&self, at: Path, name: &str, behind: &[String], reexports: u32) -> Path {
        let Some(module) = self.modules.get(&at) else { return at };
        if module.items.contains(name) {
            return at;
        }
        let Some(left) = reexports.checked_sub(1) else { return at };
        if let Some(import) = module.imports.get(name) {
            let whole = [import.as_slice(), behind].concat();
            return self.definition(module, &whole, left).unwrap_or(at);
        }
        let through_globs = module.globs.iter().find_map(|glob| {
            let inside = self.definition(module, glob, left)?;
            self.modules.get(&inside)?.items.contains(name).then_some(inside)
        });
        through_globs.unwrap_or(at)
    }
}

fn child(path: &Path, name: &str) -> Path {
    [path.as_slice(), &[name.to_owned()]].concat()
}

fn parent(path: &Path) -> Option<Path> {
    path.split_last().map(|(_, parent)| parent.to_vec())
}
