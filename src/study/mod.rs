//! Floor 8: studies that measure whether training with LRSA makes a model robust to cache
//! compression.
//!
//! `plan.rs` has the settings. `run.rs` trains and evaluates what is missing. `cell.rs` keeps each
//! result in its own file. `statistics.rs` compares the models, and `report.rs` writes the report.

mod cell;
mod plan;
mod report;
mod run;
mod statistics;

pub use cell::{Cell, CellName, TrainingRecord};
pub use plan::{Arm, StudyPlan, StudyTask};
pub use report::write_report;
pub use run::{StudyObserver, read_plan, run};
pub use statistics::{Comparison, compare};
