//! Floor 8: exports of a model with its adapter, verified against the model in memory.
//!
//! `job.rs` describes an export and `weight_type.rs` the types of weights. `run.rs` runs it: it
//! writes a Hugging Face folder, an MLX folder (`folder.rs`) or a GGUF file (`gguf.rs`), reads the
//! result back (`verify.rs`) and only then gives it its name.

mod folder;
mod gguf;
mod job;
mod run;
mod verify;
mod weight_type;

pub use job::{ExportFormat, ExportJob, ExportObserver};
pub use run::{Exported, export};
pub use verify::Comparison;
pub use weight_type::WeightType;
