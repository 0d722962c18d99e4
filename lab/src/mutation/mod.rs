//! The mutation score: how many faults planted in the kernels' WGSL the cases detect.
//!
//! A mutant is the text of one shader file with one small fault (`expressions.rs`, `statements.rs`,
//! `interface.rs`). A mutant is killed if any quick case that dispatches a kernel linking the file
//! detects a difference from the f64 reference (`suite.rs`). Mutants hang and crash drivers, so
//! worker processes (`worker.rs`) run them under a parent process (`parent.rs`). A surviving mutant
//! is either listed as equivalent with a reason (`equivalent.txt`) or shows that a case is missing.
//! The score does not cover the references or the host code around the kernels. `longreach-lab
//! mutants` runs it, also on a file of given faults (`given.rs`).

mod equivalent;
mod expressions;
mod given;
mod interface;
mod mutant;
mod operand;
mod parent;
mod report;
mod statements;
mod suite;
mod worker;

pub use mutant::{Mutant, mutants};
pub use parent::{Options, run};
pub use report::{Outcome, Report, ShaderScore, Verdict};
pub use worker::serve;
