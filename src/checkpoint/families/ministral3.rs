//! Ministral 3: a Mistral with YaRN whose queries are scaled by their position.

use super::family::{AttentionBias, Defaults, Family, LIKE_LLAMA, Windows};
use crate::model::config::Architecture;

pub(super) static FAMILY: Family = Family {
    architecture: Architecture::new("ministral3"),
    class: "Ministral3ForCausalLM",
    wrappers: &["mistral3"],
    gguf: &["mistral3"],
    attention_bias: AttentionBias::None,
    mlp_bias: false,
    windows: Windows::EveryLayer,
    query_scale: true,
    defaults: Defaults {
        inner: 14336,
        n_layers: 34,
        n_kv_heads: Some(8),
        head_dim: Some(128),
        vocab: 131_072,
        max_positions: 262_144,
        rms_eps: 1e-5,
        theta: 1e6,
        ..LIKE_LLAMA.defaults
    },
    ..LIKE_LLAMA
};
