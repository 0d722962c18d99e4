//! What a model is made of: sizes, RoPE and the few switches in which the supported architectures differ.
//!
//! No weights and no arithmetic here. A configuration is read from a Hugging Face folder by [`config_hf`](crate::checkpoint::config_hf) or
//! from a GGUF file by [`config_gguf`](crate::checkpoint::config_gguf); [`rope`](super::rope) makes tables of it and
//! [`weights`](crate::checkpoint::weights) knows which tensors belong to it.

use crate::error::Result;

/// Model families that share one forward pass: pre-norm blocks of grouped-query attention and SwiGLU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
}

impl Architecture {
    /// Every supported one.
    pub const ALL: [Architecture; 4] =
        [Architecture::Llama, Architecture::Mistral, Architecture::Qwen2, Architecture::Qwen3];

    /// Hugging Face's `model_type`, which is GGUF's `general.architecture` too.
    pub const fn model_type(self) -> &'static str {
        match self {
            Architecture::Llama => "llama",
            Architecture::Mistral => "mistral",
            Architecture::Qwen2 => "qwen2",
            Architecture::Qwen3 => "qwen3",
        }
    }

    /// The class that transformers loads the model with.
    pub const fn hf_class(self) -> &'static str {
        match self {
            Architecture::Llama => "LlamaForCausalLM",
            Architecture::Mistral => "MistralForCausalLM",
            Architecture::Qwen2 => "Qwen2ForCausalLM",
            Architecture::Qwen3 => "Qwen3ForCausalLM",
        }
    }

    /// The architecture of a `model_type`; the error lists those that are supported.
    pub fn parse(model_type: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|a| a.model_type() == model_type) {
            Some(architecture) => Ok(architecture),
            None => crate::bail!(
                "model type '{model_type}' is not supported; expected one of {}",
                Self::ALL.map(Self::model_type).join(", ")
            ),
        }
    }
}

/// How the rotation frequencies differ from theta's powers.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    None,
    /// Every frequency is divided by `factor`.
    Linear {
        factor: f64,
    },
    /// Llama 3.x: low frequencies are divided by `factor`, high ones stay, those between are blended.
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_max_positions: usize,
    },
    /// One divisor per frequency (`head_dim / 2`), as GGUF files keep Llama 3's scaling in `rope_freqs.weight`.
    Factors(Vec<f32>),
}

/// Rotary position embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    pub theta: f64,
    pub scaling: RopeScaling,
}

/// Everything about a model that its weights do not say.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub architecture: Architecture,
    /// Channels of the residual stream.
    pub hidden: usize,
    /// Channels inside the feed-forward block.
    pub inner: usize,
    pub n_layers: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    pub vocab: usize,
    /// Tokens that the model was made for (`max_position_embeddings`).
    pub max_positions: usize,
    pub rms_eps: f64,
    pub rope: RopeConfig,
    /// The LM head is the embedding; the file has no `lm_head.weight`, or one that is ignored.
    pub tied: bool,
    pub qkv_bias: bool,
    pub o_bias: bool,
    pub mlp_bias: bool,
    /// Qwen3: RMS norm of each query and key head before the rotation.
    pub qk_norm: bool,
    pub bos: Option<u32>,
    /// Tokens that end a text; may be empty. `generation_config.json` may say otherwise.
    pub eos: Vec<u32>,
    /// The `config.json` that this was read from, word for word.
    pub hf_json: Option<String>,
}

/// No model of these families comes near; sizes above are damage, and products of sizes below cannot overflow.
const MAX_CHANNELS: usize = 1 << 20;
const MAX_HEAD_DIM: usize = 1 << 12;
const MAX_VOCAB: usize = 1 << 24;
const MAX_LAYERS: usize = 1 << 12;
const MAX_POSITIONS: usize = 1 << 30;

impl ModelConfig {
    /// Output channels of the query projection.
    pub fn q_channels(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Output channels of the key and of the value projection.
    pub fn kv_channels(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Refuses sizes that no model can have. Every reader calls this last.
    pub fn validate(&self) -> Result<()> {
        let sizes = [
            ("hidden_size", self.hidden, MAX_CHANNELS),
            ("intermediate_size", self.inner, MAX_CHANNELS),
            ("num_hidden_layers", self.n_layers, MAX_LAYERS),
            ("num_attention_heads", self.n_heads, MAX_CHANNELS),
            ("num_key_value_heads", self.n_kv_heads, MAX_CHANNELS),
            ("head_dim", self.head_dim, MAX_HEAD_DIM),
            ("vocab_size", self.vocab, MAX_VOCAB),
            ("max_position_embeddings", self.max_positions, MAX_POSITIONS),
        ];
        for (name, found, most) in sizes {
            crate::ensure!((1..=most).contains(&found), "{name}: expected 1 to {most}, found {found}");
        }
        crate::ensure!(
            self.n_heads.is_multiple_of(self.n_kv_heads),
            "num_attention_heads ({}) is no multiple of num_key_value_heads ({})",
            self.n_heads,
            self.n_kv_heads
        );
        crate::ensure!(
            self.head_dim.is_multiple_of(4), // the attention kernels read heads four channels at a time
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
        self.validate_rope()
    }

    fn validate_rope(&self) -> Result<()> {
        positive("rope_theta", self.rope.theta)?;
        match &self.rope.scaling {
            RopeScaling::None => {}
            RopeScaling::Linear { factor } => positive("RoPE scaling factor", *factor)?,
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => {
                positive("RoPE scaling factor", *factor)?;
                positive("RoPE low_freq_factor", *low_freq_factor)?;
                positive("RoPE high_freq_factor", *high_freq_factor)?;
                let ordered = low_freq_factor < high_freq_factor;
                crate::ensure!(
                    ordered,
                    "RoPE scaling: low_freq_factor ({low_freq_factor}) must be below high_freq_factor ({high_freq_factor})"
                );
                crate::ensure!(
                    (1..=MAX_POSITIONS).contains(original_max_positions),
                    "RoPE original_max_position_embeddings: expected 1 to {MAX_POSITIONS}, found {original_max_positions}"
                );
            }
            RopeScaling::Factors(factors) => {
                crate::ensure!(
                    factors.len() == self.head_dim / 2,
                    "rope_freqs.weight: expected {} divisors, found {}",
                    self.head_dim / 2,
                    factors.len()
                );
                for &factor in factors {
                    positive("rope_freqs.weight", f64::from(factor))?;
                }
            }
        }
        Ok(())
    }
}

fn positive(name: &str, found: f64) -> Result<()> {
    crate::ensure!(found.is_finite() && found > 0.0, "{name}: expected a positive number, found {found}");
    Ok(())
}

#[cfg(test)]
pub mod testing {
    use super::*;

    /// A small valid configuration to vary.
    pub fn small() -> ModelConfig {
        ModelConfig {
            architecture: Architecture::Llama,
            hidden: 8,
            inner: 12,
            n_layers: 2,
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 4,
            vocab: 10,
            max_positions: 64,
            rms_eps: 1e-5,
            rope: RopeConfig { theta: 1e4, scaling: RopeScaling::None },
            tied: false,
            qkv_bias: false,
            o_bias: false,
            mlp_bias: false,
            qk_norm: false,
            bos: Some(1),
            eos: vec![2],
            hf_json: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::small;
    use super::*;

    fn error_of(change: impl Fn(&mut ModelConfig)) -> String {
        let mut config = small();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn impossible_sizes_are_named() {
        small().validate().unwrap();
        assert!(error_of(|c| c.n_layers = 0).contains("num_hidden_layers"));
        assert!(error_of(|c| c.vocab = usize::MAX).contains("vocab_size"));
        assert!(error_of(|c| c.n_kv_heads = 3).contains("no multiple"));
        assert!(error_of(|c| c.head_dim = 6).contains("multiple of 4"));
        assert!(error_of(|c| (c.n_heads, c.head_dim) = (1 << 12, 1 << 12)).contains("more than any"));
        assert!(error_of(|c| c.rms_eps = f64::NAN).contains("rms_norm_eps"));
        assert!(error_of(|c| c.rope.scaling = RopeScaling::Factors(vec![1.0])).contains("expected 2 divisors"));
        assert!(error_of(|c| c.rope.scaling = RopeScaling::Factors(vec![1.0, 0.0])).contains("positive"));
    }

    #[test]
    fn unknown_model_types_are_told_what_is_supported() {
        let e = Architecture::parse("gemma3").unwrap_err().to_string();
        assert!(e.contains("'gemma3'") && e.contains("llama, mistral, qwen2, qwen3"), "{e}");
    }
}
