//! The lab: tools for the developers of Longreach.
//!
//! - [`mutation`] measures how many planted faults the kernels' cases detect:
//!   `cargo run --release -p longreach-lab -- mutants`.
//! - [`lints`] holds shader rules that no compiler checks. The tests of this crate apply them.
//!
//! The lab uses only the public API of Longreach, with the feature `testing`. Nothing in
//! `longreach` uses the lab.

pub mod lints;
pub mod mutants;
pub mod mutation;
mod program;

pub use program::main;
