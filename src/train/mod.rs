//! Floor 8: fine-tuning.
//!
//! `objective.rs` computes the loss of a batch, in its rows (`loss_rows.rs`); `distill.rs` that of
//! a student that learns from the dense model, and `preference.rs` that of preference pairs.
//! `gradient_step.rs` computes gradients, `streamed.rs` those of a long sequence chunk by chunk,
//! `streamed_pairs.rs` those of a long pair, and `stepper.rs` runs one optimiser step. `trainer.rs`
//! holds the model in training, `fit.rs` runs the training loop, and `run.rs` runs a job (`job.rs`,
//! `job_rules.rs`, `job_data.rs`, `keep.rs`) from files to the output folder (`run_folder.rs`,
//! `held.rs`, `run_log.rs`), whose checkpoints hold the state of the run (`saved_state.rs`).
//! `event_file.rs` writes the logs for TensorBoard and `trainer_state_json.rs` for transformers
//! (`log_values.rs`), and `plots.rs` draws them, the steps of each r apart (`keep_group.rs`).
//! `past_run.rs` reads runs from their folders.
//! `forecast.rs` says what a run will take (`planned.rs`, of the batches in `largest.rs`), `fitting.rs`
//! finds settings that fit where a job does not, and `probe.rs` exports the results of a forward and backward pass.

mod chunk_length;
mod distill;
mod event_file;
mod fit;
mod fitting;
mod forecast;
mod gradient_step;
mod held;
mod job;
mod job_data;
mod job_rules;
mod keep;
mod keep_group;
mod largest;
mod log_values;
mod loss_rows;
mod objective;
mod observer;
mod past_run;
mod planned;
mod plots;
mod preference;
mod probe;
mod run;
mod run_folder;
mod run_log;
mod save;
mod saved_state;
mod state;
mod step_clock;
mod stepper;
mod streamed;
mod streamed_pairs;
mod trainer;
mod trainer_state_json;

pub use chunk_length::ChunkLength;
pub use distill::{Counts, Distill, Teacher, distilled_loss};
pub use gradient_step::GradientStep;
pub use held::{Held, held};
pub use job::{DEFAULT_RANK, Method, TrainJob};
pub use job_data::read_data;
pub use keep::{Draws, Keep};
pub use keep_group::KeepGroup;
pub use loss_rows::LossRows;
pub use objective::{Objective, UploadedBatch};
pub use observer::{EvalLine, Observer, StepLine, Summary};
pub use past_run::{PastRun, PastState};
pub use planned::{Forecast, PlannedMemory};
pub use plots::{Curve, run_chart};
pub use preference::{ObjectiveKind, PairCounts, PairStats, Preference};
pub use probe::{ProbeRequest, file_shape, probe};
pub use run::{dry_run, run, run_opened};
pub use run_folder::RunFolder;
pub use run_log::{EVAL, Logs, METRICS, read_steps};
pub use save::save;
pub use state::TrainerState;
pub use stepper::{LossParts, StartedStep, StepReport, StepSettings, Stepper};
pub use trainer::Trainer;
