//! SmolLM3: a Llama without RoPE on every fourth layer.

use super::family::{Defaults, Family, LIKE_LLAMA, Windows};
use crate::model::config::Architecture;

pub(super) static FAMILY: Family = Family {
    architecture: Architecture::new("smollm3"),
    class: "SmolLM3ForCausalLM",
    gguf: &["smollm3"],
    windows: Windows::UnrotatedLayers,
    unrotated_layers: true,
    defaults: Defaults {
        hidden: 2048,
        n_layers: 36,
        n_heads: 16,
        n_kv_heads: Some(4),
        vocab: 128_256,
        max_positions: 32_768,
        theta: 2e6,
        tied: true,
        bos: Some(128_000),
        eos: &[128_001],
        ..LIKE_LLAMA.defaults
    },
    ..LIKE_LLAMA
};
