//! Qwen2 and Qwen2.5: biases on q, k and v.

use super::family::{AttentionBias, Defaults, Family, LIKE_LLAMA, Windows};
use crate::model::config::Architecture;

pub(super) static FAMILY: Family = Family {
    architecture: Architecture::new("qwen2"),
    class: "Qwen2ForCausalLM",
    gguf: &["qwen2"],
    permutes_rows: false,
    attention_bias: AttentionBias::Qkv,
    mlp_bias: false,
    windows: Windows::UpperLayers,
    defaults: Defaults {
        inner: 22016,
        n_kv_heads: Some(32),
        vocab: 151_936,
        max_positions: 32_768,
        window: Some(4096),
        bos: None,
        eos: &[],
        ..LIKE_LLAMA.defaults
    },
    ..LIKE_LLAMA
};
