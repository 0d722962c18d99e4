//! The lab: what only the developers of Longreach run.
//!
//! - [`mutation`] measures how many planted faults the cases of the kernels find:
//!   `cargo run --release -p longreach-lab -- mutants`.
//! - [`lints`] are the rules for shaders that no compiler checks. The tests of this crate apply
//!   them.
//!
//! The lab uses the public API of Longreach alone, with its feature `testing`. Nothing in
//! `longreach` uses the lab.

pub mod lints;
pub mod mutants;
pub mod mutation;
mod output;
mod program;

pub use program::main;
