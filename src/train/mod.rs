//! Floor 8: fine-tuning.
//!
//! `objective.rs` is the loss of a batch, `gradient_step.rs` its gradients, `stepper.rs` one
//! optimiser step, `trainer.rs` the model that is trained, `fit.rs` the loop around it, and
//! `run.rs` a whole job (`job.rs`) from files to the output folder. `probe.rs` shows what forward
//! and backward compute.

mod fit;
mod gradient_step;
mod job;
mod objective;
mod observer;
mod probe;
mod run;
mod run_folder;
mod save;
mod state;
mod step_clock;
mod stepper;
mod trainer;

pub use gradient_step::GradientStep;
pub use job::{DEFAULT_RANK, Method, TrainJob};
pub use objective::{Objective, UploadedBatch};
pub use observer::{EvalLine, Observer, StepLine, Summary};
pub use probe::{ProbeRequest, file_shape, probe};
pub use run::{read_data, run, run_opened};
pub use run_folder::{EVAL, METRICS, RunFolder, holds_result};
pub use save::save;
pub use state::TrainerState;
pub use stepper::{StartedStep, StepReport, StepSettings, Stepper};
pub use trainer::Trainer;
