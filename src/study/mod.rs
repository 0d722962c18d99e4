//! Floor 8: studies that measure whether training with LRSA makes a model robust to cache
//! compression.
//!
//! `plan.rs` has the settings, with the models to train (`recipe.rs`) and the tests for all of them
//! (`test_set.rs`, from `source.rs`). `run.rs` trains and evaluates what is missing. `cell.rs` keeps
//! each result in its own file. `statistics.rs` compares the models, and `report.rs` writes the
//! report.

mod cell;
mod plan;
mod recipe;
mod report;
mod run;
mod source;
mod statistics;
mod test_set;

pub use cell::{Cell, CellName, ModelName, TrainingRecord};
pub use plan::{StudyPlan, StudyTask};
pub use recipe::{BASE, LossOn, Recipe, TrainedWith};
pub use report::write_report;
pub use run::{StudyObserver, read_plan, run};
pub use statistics::{Comparison, compare};
pub use test_set::{Test, TestKind};
