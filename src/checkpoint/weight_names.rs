//! The weights of a model: Hugging Face's name and the shape of each, and its name in GGUF files.
//!
//! This file is only a table. [`weights`](super::weights) reads the files, and
//! [`adapter_file`](super::adapter_file) adds adapters to the linear layers listed here.

use super::families;
use crate::model::config::{BlockNorms, ModelConfig};

/// One of the linear layers y = W x (+ b) of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linear {
    /// Path inside the block, as in `self_attn.q_proj`.
    pub path: &'static str,
    pub gguf: &'static str,
    pub n_out: usize,
    pub n_in: usize,
    pub bias: bool,
    /// If set, GGUF files store the rows of this many heads in the order of llama.cpp's RoPE.
    permuted_heads: Option<usize>,
}

impl Linear {
    /// The last part of the path, such as `q_proj`; PEFT calls it a target module.
    pub fn target(&self) -> &'static str {
        self.path.split('.').next_back().unwrap_or(self.path)
    }
}

/// One tensor of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    /// Hugging Face's name.
    pub name: String,
    /// Row-major; [out, in] for linear layers.
    pub shape: Vec<usize>,
    pub gguf: String,
    /// Same as in [`Linear`].
    pub permuted_heads: Option<usize>,
    /// Hugging Face files hold the values minus this number.
    pub offset: f32,
}

/// The linear layers of each block, in forward order: seven, or four if the projections are fused.
pub fn linears(config: &ModelConfig) -> Vec<Linear> {
    let (hidden, inner) = (config.hidden, config.inner);
    let (q, kv) = (config.q_channels(), config.kv_channels());
    let (qkv_bias, mlp_bias) = (config.qkv_bias, config.mlp_bias);
    let permutes = families::of(config.architecture).permutes_rows;
    let heads = |n: usize| permutes.then_some(n);
    let linear =
        |path, gguf, n_out, n_in, bias, permuted_heads| Linear { path, gguf, n_out, n_in, bias, permuted_heads };
    let o = linear("self_attn.o_proj", "attn_output", hidden, q, config.o_bias, None);
    let down = linear("mlp.down_proj", "ffn_down", hidden, inner, mlp_bias, None);
    if config.fused {
        return vec![
            linear("self_attn.qkv_proj", "attn_qkv", q + 2 * kv, hidden, qkv_bias, None),
            o,
            linear("mlp.gate_up_proj", "ffn_up", 2 * inner, hidden, mlp_bias, None),
            down,
        ];
    }
    vec![
        linear("self_attn.q_proj", "attn_q", q, hidden, qkv_bias, heads(config.n_heads)),
        linear("self_attn.k_proj", "attn_k", kv, hidden, qkv_bias, heads(config.n_kv_heads)),
        linear("self_attn.v_proj", "attn_v", kv, hidden, qkv_bias, None),
        o,
        linear("mlp.gate_proj", "ffn_gate", inner, hidden, mlp_bias, None),
        linear("mlp.up_proj", "ffn_up", inner, hidden, mlp_bias, None),
        down,
    ]
}

/// Names of a block's norms in files: Hugging Face's, then GGUF's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NormNames {
    /// Before attention.
    pub input: Option<(&'static str, &'static str)>,
    /// Behind attention, before the residual.
    pub after_attention: Option<(&'static str, &'static str)>,
    /// Before the feed-forward part.
    pub mlp: Option<(&'static str, &'static str)>,
    /// Behind the feed-forward part, before the residual.
    pub after_mlp: Option<(&'static str, &'static str)>,
}

impl NormNames {
    /// The names of the norms that a block has.
    pub fn of(norms: BlockNorms) -> Self {
        let input = ("input_layernorm", "attn_norm");
        let after_attention = Some(("post_attention_layernorm", "post_attention_norm"));
        let after_mlp = Some(("post_feedforward_layernorm", "post_ffw_norm"));
        match norms {
            // Here "post attention" says where the norm stands, not what it is applied to.
            BlockNorms::Before => Self {
                input: Some(input),
                after_attention: None,
                mlp: Some(("post_attention_layernorm", "ffn_norm")),
                after_mlp: None,
            },
            BlockNorms::BeforeAndAfter => Self {
                input: Some(input),
                after_attention,
                mlp: Some(("pre_feedforward_layernorm", "ffn_norm")),
                after_mlp,
            },
            BlockNorms::After => Self { input: None, after_attention, mlp: None, after_mlp },
        }
    }

    /// Those that there are, in the order in which a forward pass meets them.
    fn all(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        [self.input, self.after_attention, self.mlp, self.after_mlp].into_iter().flatten()
    }
}

/// Every weight of the model with its shape, under Hugging Face's names.
pub fn expected_names(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    weights(config).into_iter().map(|w| (w.name, w.shape)).collect()
}

/// Every weight of the model: embedding, blocks, final norm, and the LM head unless it is tied to
/// the embedding.
pub fn weights(config: &ModelConfig) -> Vec<Weight> {
    let plain = |name: &str, gguf: &str, shape: &[usize]| Weight {
        name: format!("{name}.weight"),
        shape: shape.to_vec(),
        gguf: format!("{gguf}.weight"),
        permuted_heads: None,
        offset: 0.0,
    };
    let norm = |name: &str, gguf: &str, channels: usize| Weight {
        offset: families::of(config.architecture).norm_offset,
        ..plain(name, gguf, &[channels])
    };
    let mut out = vec![plain("model.embed_tokens", "token_embd", &[config.vocab, config.hidden])];
    for layer in 0..config.n_layers() {
        let norm = |name: &str, gguf: &str, channels: usize| {
            norm(&format!("model.layers.{layer}.{name}"), &format!("blk.{layer}.{gguf}"), channels)
        };
        let names = NormNames::of(config.norms);
        for (name, gguf) in names.all() {
            out.push(norm(name, gguf, config.hidden));
        }
        if let Some([q, k]) = config.qk_norm_channels() {
            out.push(norm("self_attn.q_norm", "attn_q_norm", q));
            out.push(norm("self_attn.k_norm", "attn_k_norm", k));
        }
        for linear in linears(config) {
            let part = |kind: &str, shape: Vec<usize>| Weight {
                name: format!("model.layers.{layer}.{}.{kind}", linear.path),
                shape,
                gguf: format!("blk.{layer}.{}.{kind}", linear.gguf),
                permuted_heads: linear.permuted_heads,
                offset: 0.0,
            };
            out.push(part("weight", vec![linear.n_out, linear.n_in]));
            if linear.bias {
                out.push(part("bias", vec![linear.n_out]));
            }
        }
    }
    out.push(norm("model.norm", "output_norm", config.hidden));
    if !config.tied {
        out.push(plain("lm_head", "output", &[config.vocab, config.hidden]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::testing::small;
    use crate::model::config::{Architecture, QkNorm};

    #[test]
    fn switches_add_exactly_their_tensors() {
        let names = |change: &dyn Fn(&mut ModelConfig)| {
            let mut config = small();
            change(&mut config);
            weights(&config).len()
        };
        let plain = names(&|_| {});
        assert_eq!(plain, 1 + 2 * 9 + 2);
        assert_eq!(names(&|c| c.tied = true), plain - 1);
        assert_eq!(names(&|c| c.qkv_bias = true), plain + 2 * 3);
        assert_eq!(names(&|c| c.o_bias = true), plain + 2);
        assert_eq!(names(&|c| c.mlp_bias = true), plain + 2 * 3);
        assert_eq!(names(&|c| c.qk_norm = QkNorm::PerHead), plain + 2 * 2);
        assert_eq!(names(&|c| c.qk_norm = QkNorm::FullWidth), plain + 2 * 2);
        assert_eq!(names(&|c| c.norms = BlockNorms::BeforeAndAfter), plain + 2 * 2);
        assert_eq!(names(&|c| c.norms = BlockNorms::After), plain);
        assert_eq!(names(&|c| c.fused = true), plain - 2 * 3);
    }

    #[test]
    fn only_llama_query_and_key_rows_are_permuted() {
        let mut config = small();
        config.qkv_bias = true;
        let permuted = |config: &ModelConfig| -> Vec<_> {
            weights(config).into_iter().filter_map(|w| Some((w.gguf, w.permuted_heads?))).take(4).collect()
        };
        let name = |k: &str| format!("blk.0.attn_{k}");
        assert_eq!(
            permuted(&config),
            [(name("q.weight"), 4), (name("q.bias"), 4), (name("k.weight"), 2), (name("k.bias"), 2)]
        );
        config.architecture = Architecture::new("qwen2");
        assert!(permuted(&config).is_empty());
    }
}
