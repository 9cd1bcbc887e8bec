//! Hooks.
fn main() {}
