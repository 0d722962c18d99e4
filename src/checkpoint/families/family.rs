//! `Family`: what distinguishes a model family in its files, as one table of names, switches and
//! defaults.
//!
//! Readers and writers follow the table, so a family that consists of known parts is a table and
//! nothing else.

use crate::kernels::activation::Activation;
use crate::model::config::{Architecture, BlockNorms, QkNorm};

/// A model family. Tables begin with [`LIKE_LLAMA`] and name what differs.
#[derive(Debug)]
pub struct Family {
    /// The value that [`ModelConfig::architecture`](crate::model::config::ModelConfig) holds: the
    /// `model_type` of its own `config.json`.
    pub architecture: Architecture,
    /// The class of transformers that loads the model.
    pub class: &'static str,
    /// Model types of multimodal models whose `text_config` may be of this family.
    pub wrappers: &'static [&'static str],
    /// Values of `general.architecture` in GGUF files, the first one for writing.
    pub gguf: &'static [&'static str],
    /// GGUF files hold the rows of q and k in the order of llama.cpp's adjacent RoPE pairs.
    pub permutes_rows: bool,

    /// Positions of the norms in a block.
    pub norms: BlockNorms,
    /// Hugging Face files hold the weights of norms minus this number.
    pub norm_offset: f32,
    /// Norms of queries and keys.
    pub qk_norm: QkNorm,
    /// One matrix for q, k and v, and one for gate and up.
    pub fused: bool,
    /// Biases of q, k, v and o.
    pub attention_bias: AttentionBias,
    /// The key `mlp_bias` gives gate, up and down a bias.
    pub mlp_bias: bool,
    /// The key that names the activation, and its default.
    pub activation: (&'static str, Activation),
    /// Embeddings are multiplied by √hidden, in the type of the weights.
    pub scales_embedding: bool,
    /// Factor of the attention scores.
    pub score_scale: ScoreScale,
    /// The keys `embedding_multiplier`, `residual_multiplier` and `logits_scaling` exist.
    pub multipliers: bool,
    /// The key `final_logit_softcapping` exists.
    pub softcaps_logits: bool,

    /// Which layers have a window.
    pub windows: Windows,
    /// The rotation of the layers with a window.
    pub window_rope: WindowRope,
    /// Some layers do not rotate: the keys `no_rope_layers` and `no_rope_layer_interval` exist.
    pub unrotated_layers: bool,
    /// `partial_rotary_factor` may be below 1.
    pub partial_rotary: bool,
    /// RoPE types `su` and `yarn` mean `longrope`.
    pub old_longrope_names: bool,
    /// Queries are scaled by their position: `llama_4_scaling_beta`. Without `rope_parameters` the
    /// settings would be unknown.
    pub query_scale: bool,

    /// Flags of a `config.json` that change the computation in a way that is not supported.
    pub refused_flags: &'static [&'static str],
    /// The values of absent keys.
    pub defaults: Defaults,
}

/// The values of absent keys, as the family's configuration class in transformers has them.
#[derive(Debug)]
pub struct Defaults {
    pub hidden: usize,
    pub inner: usize,
    pub n_layers: usize,
    pub n_heads: usize,
    /// `None`: as many as query heads.
    pub n_kv_heads: Option<usize>,
    /// `None`: hidden / heads.
    pub head_dim: Option<usize>,
    pub vocab: usize,
    pub max_positions: usize,
    /// `original_max_position_embeddings`, if the class has a default.
    pub original_positions: Option<usize>,
    pub rms_eps: f64,
    pub theta: f64,
    /// `sliding_window`.
    pub window: Option<usize>,
    pub tied: bool,
    pub bos: Option<u32>,
    pub eos: &'static [u32],
}

/// Which attention projections have biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionBias {
    None,
    /// All four, if the key `attention_bias` is true.
    Key,
    /// q, k and v.
    Qkv,
}

/// The factor of the attention scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ScoreScale {
    /// 1/√head_dim.
    HeadDim,
    /// 1/√x, x being the value of a key, with a default.
    InverseRoot(&'static str, f64),
    /// The value of a key, with a default.
    Value(&'static str, f64),
}

/// Which layers have a sliding window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windows {
    /// None.
    Never,
    /// All, if `sliding_window` is not null.
    EveryLayer,
    /// Those that `layer_types` names; if absent, all but every n-th. n has a default and perhaps a
    /// key.
    Pattern { key: Option<&'static str>, every: usize },
    /// With `use_sliding_window`: those that `layer_types` names; if absent, those from
    /// `max_window_layers` (28) on.
    UpperLayers,
    /// With `use_sliding_window`: those that `layer_types` names; if absent, those without RoPE.
    UnrotatedLayers,
}

/// The rotation of layers with a sliding window, where they differ from the full layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WindowRope {
    /// As the full layers.
    Same,
    /// Unscaled, with the theta of a key, which has a default.
    OwnTheta(&'static str, f64),
    /// The theta of the full layers, unscaled.
    Unscaled,
}

/// Llama: the table with which the others begin.
pub const LIKE_LLAMA: Family = Family {
    architecture: Architecture::LLAMA,
    class: "LlamaForCausalLM",
    wrappers: &[],
    gguf: &["llama"],
    permutes_rows: true,
    norms: BlockNorms::Before,
    norm_offset: 0.0,
    qk_norm: QkNorm::None,
    fused: false,
    attention_bias: AttentionBias::Key,
    mlp_bias: true,
    activation: ("hidden_act", Activation::SwiGlu),
    scales_embedding: false,
    score_scale: ScoreScale::HeadDim,
    multipliers: false,
    softcaps_logits: false,
    windows: Windows::Never,
    window_rope: WindowRope::Same,
    unrotated_layers: false,
    partial_rotary: false,
    old_longrope_names: false,
    query_scale: false,
    refused_flags: &[],
    defaults: Defaults {
        hidden: 4096,
        inner: 11008,
        n_layers: 32,
        n_heads: 32,
        n_kv_heads: None,
        head_dim: None,
        vocab: 32000,
        max_positions: 2048,
        original_positions: None,
        rms_eps: 1e-6,
        theta: 1e4,
        window: None,
        tied: false,
        bos: Some(1),
        eos: &[2],
    },
};
