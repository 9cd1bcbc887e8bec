//! The layouts that cross a map, written down for each map ABI version: a change without a new version is refused.

use proc_macro2::{TokenStream, TokenTree};
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
        let (mut lines, mut lengths) = (Vec::new(), Vec::new());
        for (path, text) in files {
            let file = syn::parse_file(text).map_err(|error| format!("{path}: {error}"))?;
            for item in &file.items {
                match item {
                    Item::Struct(it) if has_layout(&it.attrs) => {
                        lines.push(format!("type {}{} {}", it.ident, plain(&it.generics), fields(&it.fields)));
                    }
                    Item::Type(it) => lines.push(format!("type {} = {}", it.ident, plain(&it.ty))),
                    Item::Impl(it) if it.trait_.is_none() => lines.extend(constants(it)),
                    Item::Const(it) if it.ident == "ABI_VERSION" => layouts.version = version(&it.expr),
                    Item::Const(it) => lengths.push((it.ident.to_string(), plain(&it.expr))),
                    Item::Macro(it) if it.mac.path.is_ident("maps") => {
                        lines.extend(rows(&it.mac.tokens, ';').iter().map(|row| format!("map {row}")));
                    }
                    Item::Macro(it) if it.mac.path.is_ident("reasons") => {
                        let reasons = rows(&it.mac.tokens, ',').into_iter().enumerate();
                        lines.extend(reasons.map(|(number, row)| format!("reason {number:02} {row}")));
                    }
                    _ => {}
                }
            }
        }
        // A constant that is the length of an array is a part of the layout.
        let is_length = |name: &str| lines.iter().any(|line| line.contains(&format!("; {name}]")));
        let lengths: Vec<_> = lengths.into_iter().filter(|(name, _)| is_length(name)).collect();
        lines.extend(lengths.into_iter().map(|(name, value)| format!("const {name} = {value}")));
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

/// Returns the public constants of a type: the numbers of its states and flags.
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

/// Returns whether a type has `repr(C)` or `repr(transparent)`.
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

/// Returns the number in the last branch: the version of a build without `next-abi`.
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

/// Returns the rows of a macro that end with this mark, without their attributes. A mark inside of brackets ends no row.
fn rows(tokens: &TokenStream, end: char) -> Vec<String> {
    let (mut rows, mut row) = (Vec::new(), TokenStream::new());
    let mut tokens = tokens.clone().into_iter();
    while let Some(token) = tokens.next() {
        match &token {
            TokenTree::Punct(mark) if mark.as_char() == '#' => drop(tokens.next()),
            TokenTree::Punct(mark) if mark.as_char() == end => rows.push(plain(&std::mem::take(&mut row))),
            _ => row.extend([token]),
        }
    }
    rows.extend((!row.is_empty()).then(|| plain(&row)));
    rows
}

/// Returns tokens as one line with single blanks.
fn plain(tokens: &impl quote::ToTokens) -> String {
    tokens.to_token_stream().to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIB: &str = "pub const ABI_VERSION: u32 = if cfg!(feature = \"next-abi\") { 6 } else { 5 };
        pub const LENGTH: usize = 4; pub const OTHER: usize = 1;
        #[repr(C)] pub struct A { pub first: u32, pub second: [u8; LENGTH] }
        #[repr(transparent)] pub struct B(pub u32);
        pub struct NoLayout { x: u8 }";
    const MAPS: &str = "maps! { /// Two\n /// lines.\n Ones = \"ONES\", Array, 1, 0, u32 => [u64; 64]; }
        reasons! { /// Doc.\n First = \"first\", /// Doc, more.\n Second = \"second\" }";

    fn layouts(lib: &str, maps: &str) -> Layouts {
        Layouts::read([("lib.rs", lib), ("maps.rs", maps)].into_iter()).unwrap()
    }

    #[test]
    fn types_with_a_layout_and_maps_are_listed() {
        let found = layouts(LIB, MAPS);
        assert_eq!(found.version.as_deref(), Some("5"));
        let lines: Vec<_> = found.text.lines().collect();
        let expected = [
            "const LENGTH = 4",
            "map Ones = \"ONES\" , Array , 1 , 0 , u32 => [u64 ; 64]",
            "reason 00 First = \"first\"",
            "reason 01 Second = \"second\"",
            "type A { first: u32, second: [u8 ; LENGTH] }",
            "type B { u32 }",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn changed_layout_without_a_new_version_is_refused() {
        let before = layouts(LIB, MAPS);
        assert_eq!(layouts(LIB, MAPS).compare(&before.text), Ok(()));
        for (lib, maps) in [
            (LIB.replace("first: u32", "first: u64"), MAPS.to_owned()),
            (
                LIB.replace("pub first: u32, pub second: [u8; LENGTH]", "pub second: [u8; LENGTH], pub first: u32"),
                MAPS.to_owned(),
            ),
            (LIB.to_owned(), MAPS.replace("u32 => [", "u64 => [")),
            (LIB.to_owned(), MAPS.replace("ONES", "TWOS")),
            (
                LIB.to_owned(),
                MAPS.replace(
                    "First = \"first\", /// Doc, more.\n Second = \"second\"",
                    "Second = \"second\", First = \"first\"",
                ),
            ),
            (LIB.replace("LENGTH: usize = 4", "LENGTH: usize = 8"), MAPS.to_owned()),
            (format!("{LIB} impl B {{ pub const ON: Self = Self(1); }}"), MAPS.to_owned()),
        ] {
            let error = layouts(&lib, &maps).compare(&before.text).unwrap_err();
            assert!(error.contains("map ABI version 5 have changed; raise ABI_VERSION"), "{error}");
            assert!(error.contains("\n    + "), "{error}");
        }
    }
}
