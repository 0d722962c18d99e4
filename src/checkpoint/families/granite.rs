//! Granite (dense): a Llama with multipliers for embeddings, residuals, scores and logits.

use super::family::{Family, LIKE_LLAMA, ScoreScale};
use crate::model::config::Architecture;

pub(super) static FAMILY: Family = Family {
    architecture: Architecture::new("granite"),
    class: "GraniteForCausalLM",
    gguf: &["granite"],
    score_scale: ScoreScale::Value("attention_multiplier", 1.0),
    multipliers: true,
    ..LIKE_LLAMA
};
