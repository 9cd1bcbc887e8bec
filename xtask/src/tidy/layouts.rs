//! The layouts that cross a map, written down for each map ABI version: a change without a new version is refused.

use quote::ToTokens as _;
use syn::{Attribute, Expr, ExprLit, Fields, Item, Lit};

/// Where the types and the maps are declared.
pub(super) const SOURCES: &str = "proxymatic-common/src/";
/// The folder of the snapshots: `v5.txt` is that of version 5.
pub(super) const SNAPSHOTS: &str = "proxymatic-common/layouts";

/// What a crate's sources declare.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Layouts {
    /// The version of a build without `next-abi`.
    pub(super) version: Option<String>,
    /// A line for each type with a fixed layout, each constant of a type, each map and each reason.
    pub(super) text: String,
}

impl Layouts {
    /// Reads the declarations of all files, given in the order of their paths.
    ///
    /// # Errors
    /// A file does not parse; the text names it.
    pub(super) fn read<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self, String> {
        let mut layouts = Self::default();
        let mut lines = Vec::new();
        for (path, text) in files {
            let file = syn::parse_file(text).map_err(|error| format!("{path}: {error}"))?;
            for item in &file.items {
                match item {
                    Item::Struct(it) if has_layout(&it.attrs) => {
                        lines.push(format!("type {}{} {}", it.ident, plain(&it.generics), fields(&it.fields)));
                    }
                    Item::Type(it) => lines.push(format!("type {} = {}", it.ident, plain(&it.ty))),
                    Item::Const(it) if it.ident == "ABI_VERSION" => layouts.version = version(&it.expr),
                    Item::Impl(it) if it.trait_.is_none() => lines.extend(constants(it)),
                    Item::Macro(it) if it.mac.path.is_ident("reasons") => {
                        let names = plain(&it.mac.tokens);
                        let names = names.split("# [doc = ").filter_map(|row| row.rsplit_once("\"] "));
                        let names =
                            names.map(|(_, row)| row.trim_end_matches([',', ' '])).filter(|row| !row.is_empty());
                        lines.extend(names.enumerate().map(|(number, row)| format!("reason {number:02} {row}")));
                    }
                    Item::Macro(it) if it.mac.path.is_ident("maps") => lines.extend(maps(&plain(&it.mac.tokens))),
                    _ => {}
                }
            }
        }
        lines.sort();
        layouts.text = lines.into_iter().map(|line| line + "\n").collect();
        Ok(layouts)
    }

    /// Compares with the snapshot of this version; `None` if there is none yet.
    ///
    /// # Errors
    /// The layouts are not those of the snapshot; the text names the lines and the remedy.
    pub(super) fn compare(&self, snapshot: &str) -> Result<(), String> {
        if self.text == snapshot {
            return Ok(());
        }
        let without = |lines: &'_ str, others: &'_ str, sign: char| {
            let missing = lines.lines().filter(|line| !others.lines().any(|it| it == *line));
            missing.map(|line| format!("\n    {sign} {line}")).collect::<String>()
        };
        Err(format!(
            "layouts of map ABI version {} have changed; raise ABI_VERSION, then run `cargo xtask tidy --fix`{}{}",
            self.version.as_deref().unwrap_or("?"),
            without(snapshot, &self.text, '-'),
            without(&self.text, snapshot, '+'),
        ))
    }
}

/// The public constants of a type: the numbers that stand for states and flags.
fn constants(item: &syn::ItemImpl) -> Vec<String> {
    let of = plain(&item.self_ty);
    let constant = |it: &syn::ImplItem| match it {
        syn::ImplItem::Const(it) if matches!(it.vis, syn::Visibility::Public(_)) => {
            Some(format!("const {of}::{} = {}", it.ident, plain(&it.expr)))
        }
        _ => None,
    };
    item.items.iter().filter_map(constant).collect()
}

/// Whether a type has `repr(C)` or `repr(transparent)`.
fn has_layout(attributes: &[Attribute]) -> bool {
    attributes.iter().filter(|it| it.path().is_ident("repr")).any(|it| {
        let text = it.meta.to_token_stream().to_string();
        text.contains('C') || text.contains("transparent")
    })
}

fn fields(fields: &Fields) -> String {
    let field = |it: &syn::Field| match &it.ident {
        Some(name) => format!("{name}: {}", plain(&it.ty)),
        None => plain(&it.ty),
    };
    format!("{{ {} }}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
}

/// The number in the last branch: the version without the feature that raises it.
fn version(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => Some(number.base10_digits().to_owned()),
        Expr::If(it) => version(&it.else_branch.as_ref()?.1),
        Expr::Block(it) => match it.block.stmts.last()? {
            syn::Stmt::Expr(last, _) => version(last),
            _ => None,
        },
        _ => None,
    }
}

/// The rows of `maps!`, without their doc comments.
fn maps(tokens: &str) -> Vec<String> {
    // A row ends with a semicolon, and so does the length of an array inside one: rows are told apart by their doc comments.
    let rows = tokens.split("# [doc = ").filter_map(|row| row.rsplit_once("\"] ")).map(|(_, row)| row.trim());
    rows.filter(|row| !row.is_empty()).map(|row| format!("map {}", row.trim_end_matches(';').trim_end())).collect()
}

/// Tokens in one line, with single blanks.
fn plain(tokens: &impl quote::ToTokens) -> String {
    tokens.to_token_stream().to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIB: &str = "pub const ABI_VERSION: u32 = if cfg!(feature = \"next-abi\") { 6 } else { 5 };
        #[repr(C)] pub struct A { pub first: u32, pub second: [u8; 4] }
        #[repr(transparent)] pub struct B(pub u32);
        pub struct NoLayout { x: u8 }";
    const MAPS: &str = "maps! { /// Doc.\n Ones = \"ONES\", Array, 1, 0, u32 => A; }";

    fn layouts(lib: &str, maps: &str) -> Layouts {
        Layouts::read([("lib.rs", lib), ("maps.rs", maps)].into_iter()).unwrap()
    }

    #[test]
    fn types_with_a_layout_and_maps_are_listed() {
        let found = layouts(LIB, MAPS);
        assert_eq!(found.version.as_deref(), Some("5"));
        let lines: Vec<_> = found.text.lines().collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].starts_with("map Ones = \"ONES\" , Array"), "{lines:?}");
        assert_eq!(lines[1], "type A { first: u32, second: [u8 ; 4] }");
    }

    #[test]
    fn changed_layout_without_a_new_version_is_refused() {
        let before = layouts(LIB, MAPS);
        assert_eq!(layouts(LIB, MAPS).compare(&before.text), Ok(()));
        for (lib, maps) in [
            (LIB.replace("first: u32", "first: u64"), MAPS.to_owned()),
            (
                LIB.replace("pub first: u32, pub second: [u8; 4]", "pub second: [u8; 4], pub first: u32"),
                MAPS.to_owned(),
            ),
            (LIB.to_owned(), MAPS.replace("u32 => A", "u64 => A")),
            (LIB.to_owned(), MAPS.replace("ONES", "TWOS")),
            (format!("{LIB} impl B {{ pub const ON: Self = Self(1); }}"), MAPS.to_owned()),
        ] {
            let error = layouts(&lib, &maps).compare(&before.text).unwrap_err();
            assert!(error.contains("map ABI version 5 have changed; raise ABI_VERSION"), "{error}");
            assert!(error.contains("\n    + "), "{error}");
        }
    }
}
