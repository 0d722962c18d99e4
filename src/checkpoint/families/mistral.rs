//! Mistral 7B and models like it: a Llama in which every layer may have a window.

use super::family::{AttentionBias, Defaults, Family, LIKE_LLAMA, Windows};
use crate::model::config::Architecture;

pub(super) static FAMILY: Family = Family {
    architecture: Architecture::new("mistral"),
    class: "MistralForCausalLM",
    wrappers: &["mistral3"],
    gguf: &["llama"], // the window tells them apart
    attention_bias: AttentionBias::None,
    mlp_bias: false,
    windows: Windows::EveryLayer,
    defaults: Defaults {
        inner: 14336,
        n_kv_heads: Some(8),
        max_positions: 131_072,
        window: Some(4096),
        ..LIKE_LLAMA.defaults
    },
    ..LIKE_LLAMA
};
