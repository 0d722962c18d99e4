//! Terminal output. A closed pipe is an error on stdout and is ignored on stderr.

use std::io::Write;

use longreach::error::{Context, Result};

/// Writes a line to stdout and flushes it.
pub fn print_line(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("writing to standard output")
}

/// Writes a line to stderr.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
