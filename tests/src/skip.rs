//! Tests that the kernel of the machine cannot run say so by name: a green line alone would claim more.

use std::io::{self, Write as _};

/// Says on standard error, past the capture of the test's output, what was not tested and why.
///
/// # Errors
/// Standard error cannot be written to.
pub fn skipped(what: &str, why: &str) -> io::Result<()> {
    writeln!(io::stderr(), "\nSKIPPED {what}: {why}")
}
