//! Skips and facts, which a test reports in addition to its verdict. A test that this kernel cannot run reports a skip
//! by name; a green line alone would claim more.

use std::io::{self, Write as _};

/// Reports on standard error, past the capture of the test's output, what was not tested and why.
///
/// # Errors
/// Standard error cannot be written to.
pub fn skipped(what: &str, why: &str) -> io::Result<()> {
    writeln!(io::stderr(), "\nSKIPPED {what}: {why}")
}

/// Reports a fact about the kernel, for docs/kernels.md, in the test's output: on a line of its own, since the name of
/// the test may begin the current one.
#[expect(clippy::print_stdout, reason = "the output of a test is where it is read from")]
pub fn fact(name: &str, value: &str) {
    println!("\nFACT {name}: {value}");
}
