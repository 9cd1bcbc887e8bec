//! Development tasks: `cargo xtask TASK`.
fn main() {}
