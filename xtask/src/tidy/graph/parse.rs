//! One file of a crate: the modules in it, what each defines, what it imports and which paths it names.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Item, ItemUse, Macro, UseTree, Visibility,
    visit::{self, Visit},
};

/// A module by its path from the root of its crate, which is the empty path.
pub(super) type Path = Vec<String>;

/// A file of a crate.
#[derive(Clone, Debug)]
pub(in crate::tidy) struct Source {
    /// The module that it is.
    pub(in crate::tidy) path: Vec<String>,
    /// Where it is, for errors.
    pub(in crate::tidy) file: String,
    pub(in crate::tidy) text: String,
}

/// A module: a file, or `mod name { ... }` inside one.
#[derive(Debug, Default)]
pub(super) struct Module {
    pub(super) path: Path,
    /// Names that it defines itself.
    pub(super) items: BTreeSet<String>,
    /// The imported paths, by their names in this module.
    pub(super) imports: BTreeMap<String, Path>,
    /// Modules that it imports with `*`.
    pub(super) globs: Vec<Path>,
    /// Paths that it names or imports for itself, without re-exports. Each is a use.
    pub(super) named: Vec<Path>,
}

impl Module {
    /// The modules of a file, without those of tests.
    pub(super) fn parse(source: &Source) -> Result<Vec<Self>, String> {
        let file = syn::parse_file(&source.text).map_err(|error| format!("{}: {error}", source.file))?;
        let mut found = Vec::new();
        collect(&source.path, &file.items, &mut found);
        Ok(found)
    }
}

fn collect(path: &Path, items: &[Item], found: &mut Vec<Module>) {
    let mut module = Module { path: path.clone(), ..Module::default() };
    for item in items.iter().filter(|item| !is_test(attributes(item))) {
        match item {
            Item::Mod(inner) => {
                if let Some((_, items)) = &inner.content {
                    let path = [path.as_slice(), &[inner.ident.to_string()]].concat();
                    collect(&path, items, found);
                }
            }
            Item::Use(import) => module.import(import),
            other => {
                module.items.extend(name(other));
                Named(&mut module.named).visit_item(other);
            }
        }
    }
    found.push(module);
}

impl Module {
    /// Adds what another file has for the same path: a folder with `lib.rs` and `main.rs` has two files for the root.
    pub(super) fn merge(&mut self, other: Self) {
        self.items.extend(other.items);
        self.imports.extend(other.imports);
        self.globs.extend(other.globs);
        self.named.extend(other.named);
    }

    fn import(&mut self, import: &ItemUse) {
        let is_reexport = !matches!(import.vis, Visibility::Inherited);
        self.import_tree(&import.tree, &mut Path::new(), is_reexport);
    }

    fn import_tree(&mut self, tree: &UseTree, prefix: &mut Path, is_reexport: bool) {
        let add = |module: &mut Self, alias: String, path: Path| {
            if !is_reexport {
                module.named.push(path.clone());
            }
            module.imports.insert(alias, path);
        };
        match tree {
            UseTree::Path(inner) => {
                prefix.push(inner.ident.to_string());
                self.import_tree(&inner.tree, prefix, is_reexport);
                prefix.pop();
            }
            UseTree::Name(leaf) if leaf.ident == "self" => {
                let alias = prefix.last().cloned().unwrap_or_default();
                add(self, alias, prefix.clone());
            }
            UseTree::Name(leaf) => {
                let name = leaf.ident.to_string();
                let path = [prefix.as_slice(), std::slice::from_ref(&name)].concat();
                add(self, name, path);
            }
            UseTree::Rename(leaf) => {
                let path = [prefix.as_slice(), &[leaf.ident.to_string()]].concat();
                add(self, leaf.rename.to_string(), path);
            }
            UseTree::Glob(_) => {
                if !is_reexport {
                    self.named.push(prefix.clone());
                }
                self.globs.push(prefix.clone());
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import_tree(tree, prefix, is_reexport);
                }
            }
        }
    }
}

/// Collects the paths of more than one part that an item names.
struct Named<'a>(&'a mut Vec<Path>);

impl<'ast> Visit<'ast> for Named<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() && path.segments.len() > 1 {
            self.0.push(path.segments.iter().map(|part| part.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_visibility(&mut self, _: &'ast Visibility) {
        // `pub(in path)` names a module without using it.
    }

    fn visit_item_use(&mut self, import: &'ast ItemUse) {
        // Inside a function: what it imports is used there.
        let mut inner = Module::default();
        inner.import(import);
        self.0.extend(inner.named);
    }

    fn visit_macro(&mut self, invocation: &'ast Macro) {
        paths_in(&invocation.tokens, self.0);
        visit::visit_macro(self, invocation);
    }
}

/// Collects the paths in the tokens of a macro.
fn paths_in(tokens: &TokenStream, found: &mut Vec<Path>) {
    let mut path = Path::new();
    let mut colons = 0;
    let mut end = |path: &mut Path| {
        if path.len() > 1 {
            found.push(path.clone());
        }
        path.clear();
    };
    let mut inner = Vec::new();
    for token in tokens.clone() {
        match token {
            TokenTree::Ident(word) if path.is_empty() || colons == 2 => {
                path.push(word.to_string());
                colons = 0;
            }
            TokenTree::Ident(word) => {
                end(&mut path);
                path.push(word.to_string());
                colons = 0;
            }
            TokenTree::Punct(mark) if mark.as_char() == ':' && !path.is_empty() => colons += 1,
            TokenTree::Group(group) => {
                end(&mut path);
                inner.push(group.stream());
            }
            _ => end(&mut path),
        }
    }
    end(&mut path);
    inner.iter().for_each(|tokens| paths_in(tokens, found));
}

/// The name that an item gives to its module.
fn name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(it) => &it.ident,
        Item::Enum(it) => &it.ident,
        Item::Fn(it) => &it.sig.ident,
        Item::Macro(it) => it.ident.as_ref()?,
        Item::Static(it) => &it.ident,
        Item::Struct(it) => &it.ident,
        Item::Trait(it) => &it.ident,
        Item::TraitAlias(it) => &it.ident,
        Item::Type(it) => &it.ident,
        Item::Union(it) => &it.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(it) => &it.attrs,
        Item::Enum(it) => &it.attrs,
        Item::Fn(it) => &it.attrs,
        Item::Impl(it) => &it.attrs,
        Item::Macro(it) => &it.attrs,
        Item::Mod(it) => &it.attrs,
        Item::Static(it) => &it.attrs,
        Item::Struct(it) => &it.attrs,
        Item::Trait(it) => &it.attrs,
        Item::Type(it) => &it.attrs,
        Item::Use(it) => &it.attrs,
        _ => &[],
    }
}

/// Whether an item is compiled for tests only.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
    })
}
