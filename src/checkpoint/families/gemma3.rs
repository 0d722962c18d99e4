//! Gemma 3 (text): norms before and after both parts, GELU, and mostly layers with a window and
//! their own theta.

use super::family::{Defaults, Family, LIKE_LLAMA, ScoreScale, WindowRope, Windows};
use crate::kernels::activation::Activation;
use crate::model::config::{Architecture, BlockNorms, QkNorm};

pub(super) static FAMILY: Family = Family {
    architecture: Architecture::new("gemma3_text"),
    class: "Gemma3ForCausalLM",
    wrappers: &["gemma3"],
    gguf: &["gemma3"],
    permutes_rows: false,
    norms: BlockNorms::BeforeAndAfter,
    norm_offset: 1.0,
    qk_norm: QkNorm::PerHead,
    mlp_bias: false,
    activation: ("hidden_activation", Activation::GeGluTanh),
    scales_embedding: true,
    score_scale: ScoreScale::InverseRoot("query_pre_attn_scalar", 256.0),
    softcaps_logits: true,
    windows: Windows::Pattern { key: Some("sliding_window_pattern"), every: 6 },
    window_rope: WindowRope::OwnTheta("rope_local_base_freq", 1e4),
    refused_flags: &["use_bidirectional_attention"],
    defaults: Defaults {
        hidden: 2304,
        inner: 9216,
        n_layers: 26,
        n_heads: 8,
        n_kv_heads: Some(4),
        head_dim: Some(256),
        vocab: 262_208,
        max_positions: 131_072,
        theta: 1e6,
        window: Some(4096),
        tied: true,
        bos: Some(2),
        eos: &[1],
        ..LIKE_LLAMA.defaults
    },
    ..LIKE_LLAMA
};
