//! Floor 8: fine-tuning. `objective.rs` is the loss of a batch, `stepper.rs` one optimiser step, `trainer.rs` the loop around
//! it, `run.rs` a whole job (`job.rs`) from files to the output folder; `probe.rs` shows what forward and backward compute.

mod job;
mod objective;
mod observer;
mod probe;
mod run;
mod run_folder;
mod save;
mod stepper;
mod trainer;

pub use job::{DEFAULT_LR_FULL, DEFAULT_LR_LORA, DEFAULT_RANK, Method, TrainJob};
pub use objective::{Objective, UploadedBatch};
pub use observer::{EvalLine, Observer, StepLine, Summary};
pub use probe::{ProbeRequest, file_shape, probe};
pub use run::{read_data, run, run_opened};
pub use run_folder::{EVAL, METRICS, RunFolder, holds_result};
pub use save::save;
pub use stepper::{StartedStep, StepReport, Stepper};
pub use trainer::Trainer;
