//! Floor 8: does training with LRSA make a model robust under compression? `plan.rs` says what is compared, `run.rs` trains and evaluates
//! what is missing, `cell.rs` keeps each result in a file of its own, `statistics.rs` compares, `report.rs` tells.

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
