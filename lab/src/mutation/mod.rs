//! The mutation score: how many faults, planted one at a time in the WGSL of the kernels, the cases
//! find.
//!
//! A mutant is the text of one shader file with one small fault (`expressions.rs`, `statements.rs`,
//! `interface.rs`). It is killed when any quick case that dispatches a kernel linking the file
//! tells it from the f64 reference (`suite.rs`). Mutants hang and crash drivers, so worker
//! processes run them (`worker.rs`) under the eyes of a parent (`parent.rs`). Those that survive
//! are either listed with the reason why nothing could tell them from the original
//! (`equivalent.txt`) or show that a case is missing. This says nothing of the references, nor of
//! the host code around the kernels. `longreach-lab mutants` runs it, also on faults that somebody
//! wrote down (`given.rs`).

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
