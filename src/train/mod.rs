//! Floor 8: fine-tuning. `objective.rs` is the loss of a batch, `stepper.rs` one optimiser step, `probe.rs` shows what they compute.

mod objective;
mod probe;
mod stepper;

pub use objective::{Objective, UploadedBatch};
pub use probe::{ProbeRequest, is_vector, probe};
pub use stepper::{StepReport, Stepper};
