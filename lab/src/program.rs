//! The command line of the lab.

use clap::{Parser, Subcommand};
use longreach::error::ErrorKind;

use crate::mutants;
use crate::output::note;

/// Tools for the developers of Longreach.
#[derive(Debug, Parser)]
#[command(name = "longreach-lab", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Plant faults in the kernels and count those that the cases detect.
    Mutants(mutants::MutantsArgs),
}

/// Runs the command line and returns the exit status: 0 success, 1 failure, 2 usage error.
pub fn main() -> i32 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print(); // a closed terminal is no error
            return if e.use_stderr() { 2 } else { 0 };
        }
    };
    let Verb::Mutants(args) = cli.verb;
    match mutants::run(&args) {
        Ok(()) => 0,
        Err(e) => {
            note(&format!("error: {e}"));
            if e.kind() == ErrorKind::Usage { 2 } else { 1 }
        }
    }
}
