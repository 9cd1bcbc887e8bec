//! What a test says beyond its verdict. Tests that the kernel of the machine cannot run say so by name: a green line
//! alone would claim more.

use std::io::{self, Write as _};

/// Says on standard error, past the capture of the test's output, what was not tested and why.
///
/// # Errors
/// Standard error cannot be written to.
pub fn skipped(what: &str, why: &str) -> io::Result<()> {
    writeln!(io::stderr(), "\nSKIPPED {what}: {why}")
}

/// Says what a test has found out about the kernel, for docs/kernels.md, in the test's output: on a line of its own, which the
/// name of the test may have begun.
#[expect(clippy::print_stdout, reason = "the output of a test is where it is read from")]
pub fn fact(name: &str, value: &str) {
    println!("\nFACT {name}: {value}");
}
