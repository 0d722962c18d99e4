//! Model configuration: sizes, RoPE, and the settings in which the architectures differ.
//!
//! It holds no weights and does no arithmetic. [`config_hf`](crate::checkpoint::config_hf) reads a
//! configuration from a Hugging Face folder, [`config_gguf`](crate::checkpoint::config_gguf) from a
//! GGUF file. [`rope`](super::rope) builds the RoPE tables from it, and
//! [`weights`](crate::checkpoint::weights) lists the tensors it needs.

use super::rope_config::{MAX_POSITIONS, RopeConfig, in_range, positive};
use crate::attention::{Attention, LayerAttention};
use crate::error::Result;
use crate::kernels::activation::Activation;
use std::collections::BTreeSet;

/// The family of a model, named by the `model_type` of its `config.json`.
///
/// [`families`](crate::checkpoint::families) says what distinguishes a family in its files. The
/// model itself depends only on the fields of [`ModelConfig`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Architecture(&'static str);

impl Architecture {
    /// Llama.
    pub const LLAMA: Self = Self::new("llama");

    /// The family of a `model_type`.
    pub const fn new(model_type: &'static str) -> Self {
        Self(model_type)
    }

    /// The `model_type`.
    pub const fn model_type(self) -> &'static str {
        self.0
    }
}

/// Attention settings of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerConfig {
    /// Sliding window: the number of tokens that a query sees, itself included. `None` for full
    /// attention. See [`ModelConfig::window`].
    pub window: Option<usize>,
    /// Scale of the scores.
    pub scale: f64,
    /// Index into [`ModelConfig::ropes`]; `None` for a layer without RoPE.
    pub rope: Option<usize>,
}

impl LayerConfig {
    /// Full attention with scores scaled by 1/√head_dim and the first RoPE table.
    pub fn full(head_dim: usize) -> Self {
        Self { window: None, scale: 1.0 / (head_dim as f64).sqrt(), rope: Some(0) }
    }

    /// `n` layers of full attention. Fails if `n` is 0 or above the limit on layers.
    pub fn all_full(n: usize, head_dim: usize) -> Result<Vec<Self>> {
        in_range("num_hidden_layers", n, MAX_LAYERS)?;
        Ok(vec![Self::full(head_dim); n])
    }
}

/// Positions of the RMS norms in a block. f is attention or the feed-forward layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlockNorms {
    /// x + f(norm(x)): Llama, Mistral, Qwen.
    #[default]
    Before,
    /// x + norm(f(norm(x))): the sandwich norm of Gemma 2 and 3.
    BeforeAndAfter,
    /// x + norm(f(x)): OLMo 2.
    After,
}

/// RMS norms of queries and keys before RoPE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QkNorm {
    #[default]
    None,
    /// Over each head, with one weight `[head_dim]` for all heads: Qwen3, Gemma 3.
    PerHead,
    /// Over all channels of the projection, with weights [heads · head_dim] and [kv_heads ·
    /// head_dim]: OLMo 2 and 3.
    FullWidth,
}

/// Everything about a model except its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub architecture: Architecture,
    /// Channels of the residual stream (`hidden_size`).
    pub hidden: usize,
    /// Channels inside the feed-forward layer (`intermediate_size`).
    pub inner: usize,
    /// Attention settings of each layer.
    pub layers: Vec<LayerConfig>,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    pub vocab: usize,
    /// Maximum number of positions (`max_position_embeddings`).
    pub max_positions: usize,
    pub rms_eps: f64,
    /// The RoPE settings that the layers refer to.
    pub ropes: Vec<RopeConfig>,
    /// Positions of the norms in a block.
    pub norms: BlockNorms,
    /// The LM head shares the embedding weights. The file has no `lm_head.weight`, or the reader
    /// ignores it.
    pub tied: bool,
    pub qkv_bias: bool,
    pub o_bias: bool,
    pub mlp_bias: bool,
    /// RMS norms of queries and keys before RoPE.
    pub qk_norm: QkNorm,
    /// One matrix holds the rows of q, k and v, and one those of gate and up (Phi-3). Adapters then
    /// belong to the whole matrix.
    pub fused: bool,
    /// The gated activation of the feed-forward layer.
    pub activation: Activation,
    /// Multiplies the embeddings (Gemma: √hidden; Granite: `embedding_multiplier`).
    pub embed_scale: f64,
    /// Multiplies the noise on the embeddings in training. transformers adds the noise to what the
    /// embedding module gives: Granite multiplies that by `embedding_multiplier`, and Gemma's module
    /// multiplies itself, so that its noise has the factor 1.
    pub noise_scale: f64,
    /// Multiplies what attention and the feed-forward layer add to the residual stream (Granite:
    /// `residual_multiplier`).
    pub residual_scale: f64,
    /// Multiplies the logits (Granite: 1 / `logits_scaling`).
    pub logit_scale: f64,
    /// c: the logits, after [`ModelConfig::logit_scale`], become c · tanh(logits / c) (Gemma:
    /// `final_logit_softcapping`).
    pub logit_softcap: Option<f64>,
    pub bos: Option<u32>,
    /// End-of-sequence tokens; may be empty. `generation_config.json` can override them.
    pub eos: Vec<u32>,
    /// The original `config.json`, verbatim.
    pub hf_json: Option<String>,
}

/// A Llama without sizes, which [`ModelConfig::validate`] refuses: every switch is off. Readers and
/// tests fill in what a model has.
impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            architecture: Architecture::LLAMA,
            hidden: 0,
            inner: 0,
            layers: vec![],
            n_heads: 0,
            n_kv_heads: 0,
            head_dim: 0,
            vocab: 0,
            max_positions: 0,
            rms_eps: 1e-5,
            ropes: vec![],
            norms: BlockNorms::Before,
            tied: false,
            qkv_bias: false,
            o_bias: false,
            mlp_bias: false,
            qk_norm: QkNorm::None,
            fused: false,
            activation: Activation::SwiGlu,
            embed_scale: 1.0,
            noise_scale: 1.0,
            residual_scale: 1.0,
            logit_scale: 1.0,
            logit_softcap: None,
            bos: None,
            eos: vec![],
            hf_json: None,
        }
    }
}

/// Upper limits, far above any model of these families. A larger size means a damaged file.
/// Products of sizes within the limits cannot overflow.
const MAX_CHANNELS: usize = 1 << 20;
const MAX_HEAD_DIM: usize = 1 << 12;
const MAX_VOCAB: usize = 1 << 24;
const MAX_LAYERS: usize = 1 << 12;

impl ModelConfig {
    /// Number of layers.
    pub fn n_layers(&self) -> usize {
        self.layers.len()
    }

    /// The sliding window of a layer, if it has one. A window of at least
    /// [`ModelConfig::max_positions`] counts as full attention, since it excludes nothing.
    pub fn window(&self, layer: usize) -> Option<usize> {
        self.layers[layer].window.filter(|&window| window < self.max_positions)
    }

    /// The longest sliding window of a layer, if one has any.
    pub fn longest_window(&self) -> Option<usize> {
        (0..self.n_layers()).filter_map(|layer| self.window(layer)).max()
    }

    /// What the frequencies of each RoPE setting depend on in a text of `length` tokens.
    pub(crate) fn frequency_lengths(&self, length: usize) -> Vec<usize> {
        self.ropes.iter().map(|rope| rope.frequency_length(length)).collect()
    }

    /// The attention of each layer, with `attention` for the full-attention layers.
    pub fn layer_attentions(&self, attention: Attention) -> Vec<LayerAttention> {
        (0..self.n_layers()).map(|layer| LayerAttention::new(attention, self.window(layer))).collect()
    }

    /// Bytes of the keys and values that all layers cache after `n_tokens` tokens, in f32.
    pub fn cache_bytes(&self, attention: Attention, n_tokens: usize) -> u64 {
        let entries: usize = self.layer_attentions(attention).iter().map(|layer| layer.cache_length(n_tokens)).sum();
        entries as u64 * 2 * self.kv_channels() as u64 * 4
    }

    /// A sentence about the layers that LRSA compresses, without a full stop; `None` if it
    /// compresses all of them.
    pub fn windows_note(&self) -> Option<String> {
        let windows: BTreeSet<usize> = (0..self.n_layers()).filter_map(|layer| self.window(layer)).collect();
        let n_full = (0..self.n_layers()).filter(|&layer| self.window(layer).is_none()).count();
        let of_how_many = windows.iter().map(usize::to_string).collect::<Vec<_>>().join(" or ");
        let n = self.n_layers();
        let full = match n_full {
            all if all == n => return None,
            0 => format!("none of the {n} layers has full attention, so LRSA compresses nothing"),
            1 => format!("1 of {n} layers has full attention, which LRSA compresses"),
            some => format!("{some} of {n} layers have full attention, which LRSA compresses"),
        };
        Some(format!("{full}; the others have a sliding window of {of_how_many} tokens"))
    }

    /// Output channels of the query projection.
    pub fn q_channels(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Sizes of the weights of the norms of queries and of keys, if the model has them.
    pub fn qk_norm_channels(&self) -> Option<[usize; 2]> {
        match self.qk_norm {
            QkNorm::None => None,
            QkNorm::PerHead => Some([self.head_dim; 2]),
            QkNorm::FullWidth => Some([self.q_channels(), self.kv_channels()]),
        }
    }

    /// Output channels of the key and of the value projection.
    pub fn kv_channels(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Fails if a size is impossible. Every reader calls this last.
    pub fn validate(&self) -> Result<()> {
        let sizes = [
            ("hidden_size", self.hidden, MAX_CHANNELS),
            ("intermediate_size", self.inner, MAX_CHANNELS),
            ("num_hidden_layers", self.n_layers(), MAX_LAYERS),
            ("num_attention_heads", self.n_heads, MAX_CHANNELS),
            ("num_key_value_heads", self.n_kv_heads, MAX_CHANNELS),
            ("head_dim", self.head_dim, MAX_HEAD_DIM),
            ("vocab_size", self.vocab, MAX_VOCAB),
            ("max_position_embeddings", self.max_positions, MAX_POSITIONS),
        ];
        for (name, found, most) in sizes {
            in_range(name, found, most)?;
        }
        crate::ensure!(
            self.n_heads.is_multiple_of(self.n_kv_heads),
            "num_attention_heads ({}) is no multiple of num_key_value_heads ({})",
            self.n_heads,
            self.n_kv_heads
        );
        crate::ensure!(
            self.head_dim.is_multiple_of(4), // the attention kernels read four channels at a time
            "head_dim: expected a multiple of 4, found {}",
            self.head_dim
        );
        crate::ensure!(
            self.q_channels() <= MAX_CHANNELS,
            "{} heads of {} channels are more than any model has",
            self.n_heads,
            self.head_dim
        );
        positive("rms_norm_eps", self.rms_eps)?;
        for (i, layer) in self.layers.iter().enumerate() {
            crate::ensure!(
                layer.window != Some(0),
                "layer {i}: a sliding window has at least the query itself, found 0"
            );
            positive("the factor of attention scores", layer.scale)?;
            if let Some(rope) = layer.rope {
                let n = self.ropes.len();
                crate::ensure!(rope < n, "layer {i} uses RoPE table {rope}, but there are only {n}");
            }
        }
        positive("the factor of the embeddings", self.embed_scale)?;
        positive("the factor of the noise", self.noise_scale)?;
        positive("the factor of the residuals", self.residual_scale)?;
        positive("the factor of the logits", self.logit_scale)?;
        positive("final_logit_softcapping", self.logit_softcap.unwrap_or(1.0))?;
        self.ropes.iter().try_for_each(|rope| rope.validate(self.head_dim))
    }
}

#[cfg(test)]
pub mod testing {
    use super::*;

    /// A small valid configuration to vary.
    pub fn small() -> ModelConfig {
        ModelConfig {
            hidden: 8,
            inner: 12,
            layers: vec![LayerConfig::full(4); 2],
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 4,
            vocab: 10,
            max_positions: 64,
            ropes: vec![RopeConfig::plain(1e4, 4)],
            bos: Some(1),
            eos: vec![2],
            ..ModelConfig::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::small;
    use super::*;
    use crate::model::rope_config::RopeScaling;

    fn error_of(change: impl Fn(&mut ModelConfig)) -> String {
        let mut config = small();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn impossible_sizes_are_named() {
        small().validate().unwrap();
        assert!(error_of(|c| c.layers.clear()).contains("num_hidden_layers"));
        assert!(error_of(|c| c.vocab = usize::MAX).contains("vocab_size"));
        assert!(error_of(|c| c.n_kv_heads = 3).contains("no multiple"));
        assert!(error_of(|c| c.head_dim = 6).contains("multiple of 4"));
        assert!(error_of(|c| (c.n_heads, c.head_dim) = (1 << 12, 1 << 12)).contains("more than any"));
        assert!(error_of(|c| c.rms_eps = f64::NAN).contains("rms_norm_eps"));
        assert!(error_of(|c| c.ropes[0].scaling = RopeScaling::Factors(vec![1.0])).contains("expected 2 divisors"));
        assert!(error_of(|c| c.ropes[0].scaling = RopeScaling::Factors(vec![1.0, 0.0])).contains("positive"));
    }

    #[test]
    fn impossible_layers_are_named() {
        assert!(LayerConfig::all_full(usize::MAX, 4).unwrap_err().to_string().contains("num_hidden_layers"));
        assert!(error_of(|c| c.layers[1].window = Some(0)).contains("layer 1: a sliding window"));
        assert!(error_of(|c| c.layers[1].scale = f64::INFINITY).contains("attention scores"));
        assert!(error_of(|c| c.layers[0].rope = Some(1)).contains("table 1, but there are only 1"));
    }

    #[test]
    fn impossible_rotations_and_factors_are_named() {
        assert!(error_of(|c| c.ropes[0].rotary_dim = 3).contains("partial_rotary_factor"));
        assert!(error_of(|c| c.ropes[0].rotary_dim = 6).contains("partial_rotary_factor"));
        assert!(error_of(|c| c.embed_scale = f64::NAN).contains("the embeddings"));
        assert!(error_of(|c| c.noise_scale = 0.0).contains("the noise"));
        assert!(error_of(|c| c.residual_scale = 0.0).contains("the residuals"));
        assert!(error_of(|c| c.logit_scale = -1.0).contains("the logits"));
        assert!(error_of(|c| c.logit_softcap = Some(0.0)).contains("final_logit_softcapping"));
    }

    #[test]
    fn a_window_of_all_positions_is_full_attention() {
        let mut config = small();
        config.layers[0].window = Some(63);
        config.layers[1].window = Some(64);
        assert_eq!([0, 1].map(|layer| config.window(layer)), [Some(63), None]);
        assert_eq!(config.longest_window(), Some(63));
        let attention = config.layer_attentions(Attention::Dense);
        assert_eq!(attention, [LayerAttention::Window(63), Attention::Dense.into()]);
        let note = config.windows_note().unwrap();
        assert!(
            note.starts_with("1 of 2 layers has full attention") && note.ends_with("window of 63 tokens"),
            "{note}"
        );
        config.layers[0].window = None;
        assert_eq!((config.windows_note(), config.longest_window()), (None, None));
    }
}
