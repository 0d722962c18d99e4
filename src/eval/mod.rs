//! Floor 8: how well a model does with a compressed cache. `sample.rs` is a question with its answers; `needle.rs`, `ruler.rs` and
//! `qa.rs` make them from text (`haystack.rs`), `answer.rs` has the model answer them under each attention (`policy.rs`), `score.rs`
//! judges. `perplexity.rs` and `agreement.rs` need no questions. All of them fill one kind of report (`report.rs`, `plots.rs`).
//! `kept.rs` shows what the cache kept of a text.

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
mod ruler;
mod sample;
mod score;

pub use agreement::{AgreementRequest, METRICS as AGREEMENT_METRICS, agreement};
pub use answer::{Subject, Watch, answer_all};
pub use haystack::{Haystack, Part};
pub use kept::{KeptMap, kept_map};
pub use needle::{NeedleGrid, needle_samples, needle_training};
pub use perplexity::{PerplexityRequest, perplexity};
pub use plots::plots;
pub use policy::Policy;
pub use qa::{QaGrid, qa_samples, qa_training};
pub use qa_files::{QaFile, Question};
pub use report::{EvalReport, Outcome, Row};
pub use ruler::{RulerTask, ruler_samples};
pub use sample::{Sample, Task};
pub use score::{exact_match, f1};
