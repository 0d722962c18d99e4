//! Floor 8: evaluation of models with a compressed cache.
//!
//! `sample.rs` is a question with its answers. `needle.rs` and `ruler.rs` make questions from a
//! text (`haystack.rs`), and `qa.rs` from files (`qa_files.rs`). `answer.rs` generates the model's
//! answers under each attention policy (`policy.rs`), and `score.rs` scores them. `perplexity.rs`
//! and `agreement.rs` need no questions, nor does `rounding.rs`, which measures rounded
//! activations. All evaluations fill the same report (`report.rs`, `plots.rs`). `kept.rs` finds the
//! tokens of a text that the cache keeps.

mod agreement;
mod answer;
mod haystack;
mod kept;
mod kept_svg;
mod needle;
mod perplexity;
mod plots;
mod policy;
mod qa;
mod qa_files;
mod report;
mod rounding;
mod ruler;
mod sample;
mod score;

pub use agreement::{AgreementRequest, METRICS as AGREEMENT_METRICS, agreement};
pub use answer::{Subject, Watch, answer_all};
pub use haystack::{Haystack, Part};
pub use kept::{KeptMap, WATCHED_CHUNK, kept_map, kept_map_in_chunks};
pub use needle::{NeedleGrid, needle_samples, needle_training};
pub use perplexity::{PerplexityRequest, WindowLoss, perplexity, window_losses};
pub use plots::plots;
pub use policy::Policy;
pub use qa::{qa_samples, qa_training};
pub use qa_files::{QaFile, Question};
pub use report::{EvalReport, Outcome, Row};
pub use rounding::{METRICS as ROUNDING_METRICS, rounding_cost};
pub use ruler::{RulerTask, ruler_samples, ruler_training};
pub use sample::{Conversation, QuestionGrid, Sample, Task};
pub use score::{exact_match, f1};
