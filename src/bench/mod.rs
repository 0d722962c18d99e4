//! Floor 9: benchmarks of kernels against the device's roofline, of training and of generation.
//!
//! `measure.rs` is how a time is taken; `roofline.rs` what the device can do at best; `kernels.rs`
//! how long a kernel takes beside that; `subject.rs` which model is run, `training.rs`,
//! `generation.rs` and (without a model) `attention.rs` how fast, and `profile.rs` where the time
//! goes. `report.rs` is the whole, as JSON too; `table.rs`, `compare.rs` and `plots.rs` are how
//! people read it.
//! Whether results are right is [`crate::conformance`]'s.

mod attention;
mod compare;
mod generation;
mod kernels;
mod measure;
mod plots;
mod profile;
mod report;
mod roofline;
mod subject;
mod table;
mod training;

pub use attention::{HEADS, attention_row};
pub use compare::{Change, Comparison, Quantity, compare};
pub use generation::{decode_together_row, filled_decode_row, generation_rows};
pub use kernels::kernel_rows;
pub use measure::Samples;
pub use plots::plots;
pub use profile::training_profile;
pub use report::{Activity, KernelRow, KernelShare, ModelRow, Profile, Report};
pub use roofline::Roofline;
pub use subject::{RandomModel, Subject};
pub use table::{comparison_table, table};
pub use training::{memory_row, training_row};
