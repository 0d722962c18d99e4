//! The command line of the lab.

use clap::{Parser, Subcommand};

use crate::mutants;

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
    longreach::cli::run_program(|cli: Cli| {
        let Verb::Mutants(args) = cli.verb;
        mutants::run(&args)
    })
}
