//! Qwen3 (dense): norms of each query and key head.

use super::family::{Defaults, Family, LIKE_LLAMA, Windows};
use crate::model::config::{Architecture, QkNorm};

pub(super) static FAMILY: Family = Family {
    architecture: Architecture::new("qwen3"),
    class: "Qwen3ForCausalLM",
    gguf: &["qwen3"],
    permutes_rows: false,
    qk_norm: QkNorm::PerHead,
    mlp_bias: false,
    windows: Windows::UpperLayers,
    defaults: Defaults {
        inner: 22016,
        n_kv_heads: Some(32),
        head_dim: Some(128),
        vocab: 151_936,
        max_positions: 32_768,
        window: Some(4096),
        bos: None,
        eos: &[],
        ..LIKE_LLAMA.defaults
    },
    ..LIKE_LLAMA
};
