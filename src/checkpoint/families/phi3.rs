//! Phi-3 and Phi-4-mini: fused projections, and a rotation of some channels that LongRoPE extends.

use super::family::{AttentionBias, Defaults, Family, LIKE_LLAMA, Windows};
use crate::model::config::Architecture;

pub(super) static FAMILY: Family = Family {
    architecture: Architecture::new("phi3"),
    class: "Phi3ForCausalLM",
    gguf: &["phi3"],
    permutes_rows: false,
    fused: true,
    attention_bias: AttentionBias::None,
    mlp_bias: false,
    windows: Windows::EveryLayer,
    partial_rotary: true,
    old_longrope_names: true,
    defaults: Defaults {
        hidden: 3072,
        inner: 8192,
        vocab: 32_064,
        max_positions: 4096,
        original_positions: Some(4096),
        rms_eps: 1e-5,
        eos: &[32_000],
        ..LIKE_LLAMA.defaults
    },
    ..LIKE_LLAMA
};
