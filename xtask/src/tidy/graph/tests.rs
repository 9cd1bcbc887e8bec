//! Module graphs of small crates.

use super::*;

/// A crate from its files, by module path and text.
fn graph(files: &[(&str, &str)]) -> Graph {
    let source = |(path, text): &(&str, &str)| Source {
        path: path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect(),
        file: format!("{path}.rs"),
        text: (*text).to_owned(),
    };
    Graph::read(&files.iter().map(source).collect::<Vec<_>>()).unwrap()
}

fn edges(files: &[(&str, &str)]) -> Vec<String> {
    let graph = graph(files);
    let all: Vec<_> = graph.edges.keys().map(shown).collect();
    graph.inside(&all)
}

#[test]
fn imports_and_paths_in_code_are_uses() {
    let found = edges(&[
        ("", "mod a; mod b; mod c;"),
        ("a", "use crate::b::B; fn f() -> u8 { super::c::g() }"),
        ("b", "pub struct B;"),
        ("c", "pub fn g() -> u8 { 0 }"),
    ]);
    assert_eq!(found, ["a uses b", "a uses c"]);
}

#[test]
fn a_reexport_leads_to_the_module_that_defines() {
    let found = edges(&[
        ("", "mod room; mod user;"),
        ("room", "mod inner; pub use inner::Thing;"),
        ("room::inner", "pub struct Thing;"),
        ("room::sibling", "use super::Thing;"),
        ("user", "use crate::room::Thing; fn f(_: Thing) {}"),
    ]);
    assert_eq!(found, ["room::sibling uses room::inner", "user uses room::inner"]);
}

#[test]
fn modules_that_use_each_other_are_a_cycle_unless_for_tests() {
    let files = [
        ("", "mod a; mod b;"),
        ("a", "use crate::b::B; pub struct A;"),
        ("b", "pub(in crate::a) struct B; #[cfg(test)] mod tests { use crate::a::A; }"),
    ];
    assert_eq!(graph(&files).cycles(), [] as [Vec<String>; 0]);
    let mut circle = files;
    circle[2].1 = "pub struct B(crate::a::A);";
    assert_eq!(graph(&circle).cycles(), [["a", "b"]]);
    assert_eq!(graph(&circle).inside(&["a".into(), "b".into()]), ["a uses b", "b uses a"]);
}

#[test]
fn child_and_parent_that_use_each_other_are_a_cycle() {
    let files = [
        ("", "mod a;"),
        ("a", "mod b; pub const N: u8 = b::one();"),
        ("a::b", "use super::N; pub const fn one() -> u8 { N }"),
    ];
    assert_eq!(graph(&files).cycles(), [["a", "a::b"]]);
}

#[test]
fn paths_inside_macros_are_uses() {
    let found = edges(&[
        ("", "mod a; mod b;"),
        ("a", "fn f() { println!(\"{}\", crate::b::g(1)) }"),
        ("b", "pub fn g(_: u8) {}"),
    ]);
    assert_eq!(found, ["a uses b"]);
}

#[test]
fn rooms_are_the_first_parts_of_paths() {
    let files = [
        ("", "mod a; mod b;"),
        ("a", "mod x;"),
        ("a::x", "use crate::b::y::Y; use super::z::Z;"),
        ("a::z", "pub struct Z;"),
        ("b", "pub mod y;"),
        ("b::y", "pub struct Y;"),
    ];
    let rooms = graph(&files).rooms();
    assert_eq!(rooms["a"], BTreeSet::from(["b".to_owned()]));
    assert!(rooms["b"].is_empty());
    assert_eq!(graph(&files).room_cycles(), [] as [Vec<String>; 0]);
    let mut circle = files;
    circle[5].1 = "pub struct Y(crate::a::z::Z);";
    assert_eq!(graph(&circle).room_cycles(), [["a", "b"]]);
    assert_eq!(graph(&circle).cycles(), [] as [Vec<String>; 0], "no two modules use each other");
}

#[test]
fn module_inside_a_file_belongs_to_the_file() {
    let found = edges(&[
        ("", "mod a; mod b;"),
        ("a", "pub const N: u8 = 1; mod inner { use super::N; use crate::b::B; } fn f() { inner::g() }"),
        ("b", "pub struct B;"),
    ]);
    assert_eq!(found, ["a uses b"]);
}

#[test]
fn library_and_program_in_one_folder_are_one_root() {
    let found = edges(&[
        ("", "mod a; use a::A; pub struct Root;"),
        ("", "mod b; fn main() { b::run() }"),
        ("a", "pub struct A(crate::Root);"),
        ("b", "pub fn run() {}"),
    ]);
    assert_eq!(found, ["crate uses a", "crate uses b", "a uses crate"]);
}
