//! Metadata keys of GGUF files that describe a model: which are read, and which are refused.
//!
//! The names are those of llama.cpp's loader (`src/llama-arch.cpp`), without the architecture in
//! front. The rule: a key of the table is honoured, or has no effect, or is refused by name when
//! its value is not neutral. An unknown key is ignored with a note: its writer knows something
//! that neither llama.cpp nor Longreach computes.

use super::families::{Family, ScoreScale};
use crate::error::{Context, Result};
use crate::formats::gguf::{Metadata, Value};

/// What becomes of a key.
pub(super) enum Use {
    /// Read for every family.
    Read,
    /// Read for these families, otherwise refused unless its value is one of these numbers.
    ReadBy(fn(&Family) -> bool, &'static [f64]),
    /// Refused unless its value is one of these numbers; true counts as 1.
    Neutral(&'static [f64]),
    /// Without effect on the logits.
    NoEffect,
}

use Use::{Neutral, NoEffect, Read, ReadBy};

/// The keys. One that ends in a dot stands for all keys that begin with it.
pub(super) const KEYS: &[(&str, Use)] = &[
    // Sizes.
    ("context_length", Read),
    ("embedding_length", Read),
    ("block_count", Read),
    ("feed_forward_length", Read),
    ("attention.head_count", Read),
    ("attention.head_count_kv", Read),
    ("attention.key_length", Read),
    ("attention.value_length", Read),
    ("attention.key_length_swa", Read),
    ("attention.value_length_swa", Read),
    ("attention.layer_norm_rms_epsilon", Read),
    // Windows, scales and the rotation.
    ("attention.sliding_window", Read),
    ("attention.sliding_window_pattern", Read),
    ("attention.scale", ReadBy(|f| f.score_scale != ScoreScale::HeadDim, &[0.0])),
    ("embedding_scale", ReadBy(|f| f.multipliers, &[0.0, 1.0])),
    ("residual_scale", ReadBy(|f| f.multipliers, &[0.0, 1.0])),
    ("logit_scale", ReadBy(|f| f.multipliers, &[0.0, 1.0])),
    ("final_logit_softcapping", ReadBy(|f| f.softcaps_logits, &[0.0])),
    ("attention.temperature_scale", ReadBy(|f| f.query_scale, &[0.0])),
    ("attention.rope_pattern", ReadBy(|f| f.unrotated_layers, &[1.0])),
    ("rope.dimension_count", Read),
    ("rope.dimension_count_swa", Read),
    ("rope.freq_base", Read),
    ("rope.freq_base_swa", Read),
    ("rope.global.freq_base", Read), // Ollama's names of the two
    ("rope.local.freq_base", Read),
    ("rope.scale_linear", Read),
    ("rope.scaling.type", Read),
    ("rope.scaling.factor", Read),
    ("rope.scaling.attn_factor", Read),
    ("rope.scaling.original_context_length", Read),
    ("rope.scaling.finetuned", Read),
    ("rope.scaling.yarn_log_multiplier", Read),
    ("rope.scaling.yarn_attn_factor", Read),
    ("rope.scaling.yarn_beta_fast", Read),
    ("rope.scaling.yarn_beta_slow", Read),
    // Neither llama.cpp nor transformers uses these two for the families here.
    ("rope.scaling.yarn_ext_factor", NoEffect),
    ("attn_logit_softcapping", ReadBy(|f| f.softcaps_logits, &[0.0])),
    // Parts that no family here has.
    ("expert_count", Neutral(&[0.0])),
    ("expert_used_count", Neutral(&[0.0])),
    ("expert_shared_count", Neutral(&[0.0])),
    ("expert_group_count", Neutral(&[0.0])),
    ("interleave_moe_layer_step", Neutral(&[0.0])),
    ("moe_every_n_layers", Neutral(&[0.0])),
    ("nextn_predict_layers", Neutral(&[0.0])),
    ("use_parallel_residual", Neutral(&[0.0])),
    ("swin_norm", Neutral(&[0.0])),
    ("swiglu_clamp_exp", Neutral(&[0.0])),
    ("swiglu_clamp_shexp", Neutral(&[0.0])),
    ("rescale_every_n_layers", Neutral(&[0.0])),
    ("full_attention_interval", Neutral(&[0.0, 1.0])),
    ("num_loops", Neutral(&[0.0, 1.0])),
    ("hash_layer_count", Neutral(&[0.0])),
    ("embedding_length_per_layer_input", Neutral(&[0.0])),
    ("decoder_block_count", Neutral(&[0.0])),
    ("attention.causal", Neutral(&[1.0])),
    ("attention.max_alibi_bias", Neutral(&[0.0])),
    ("attention.clamp_kqv", Neutral(&[0.0])),
    ("attention.output_scale", Neutral(&[0.0, 1.0])),
    ("attention.value_scale", Neutral(&[0.0, 1.0])),
    ("attention.temperature_length", Neutral(&[0.0])),
    ("attention.relative_buckets_count", Neutral(&[0.0])),
    ("attention.q_lora_rank", Neutral(&[0.0])),
    ("attention.kv_lora_rank", Neutral(&[0.0])),
    ("attention.key_length_mla", Neutral(&[0.0])),
    ("attention.value_length_mla", Neutral(&[0.0])),
    ("attention.shared_kv_layers", Neutral(&[0.0])),
    ("attention.recurrent_layers", Neutral(&[0.0])),
    ("attention.indexer.", Neutral(&[0.0])),
    ("rope.dimension_sections", Neutral(&[0.0])),
    ("rope.scaling.alpha", Neutral(&[0.0])),
    ("ssm.", Neutral(&[0.0])),
    ("wkv.", Neutral(&[0.0])),
    ("hrm.", Neutral(&[0.0])),
    ("ple.", Neutral(&[0.0])),
    ("hyper_connection.", Neutral(&[0.0])),
    ("adapters.", Neutral(&[0.0])),
    // The vocabulary is as large as the embedding, and the norms are RMS norms. Pooling and
    // classes belong to embedding models, the deep stack and the last two to images.
    ("vocab_size", NoEffect),
    ("tensor_data_layout", NoEffect),
    ("attention.layer_norm_epsilon", NoEffect),
    ("attention.group_norm_epsilon", NoEffect),
    ("attention.group_norm_groups", NoEffect),
    ("leading_dense_block_count", NoEffect),
    ("expert_feed_forward_length", NoEffect), // the number of experts decides
    ("expert_shared_feed_forward_length", NoEffect),
    ("expert_weights_scale", NoEffect),
    ("expert_weights_norm", NoEffect),
    ("expert_gating_func", NoEffect),
    ("pooling_type", NoEffect),
    ("classifier.", NoEffect),
    ("n_deepstack_layers", NoEffect),
    ("deepstack_mapping", NoEffect),
    ("vision.", NoEffect),
    ("mm.", NoEffect),
];

/// The entry of a key, which may end in a dot in the table.
fn entry(key: &str) -> Option<&'static Use> {
    let found = KEYS.iter().find(|(name, _)| *name == key || name.ends_with('.') && key.starts_with(name));
    found.map(|(_, what)| what)
}

/// Whether a number, a truth value or every element of an array is one of `numbers`.
fn is_one_of(value: &Value, numbers: &[f64]) -> bool {
    match value {
        Value::U64(v) => numbers.contains(&(*v as f64)),
        Value::I64(v) => numbers.contains(&(*v as f64)),
        Value::F64(v) => numbers.contains(v),
        Value::Bool(v) => numbers.contains(&f64::from(u8::from(*v))),
        Value::Array(values) => values.iter().all(|v| is_one_of(v, numbers)),
        Value::String(_) => false,
    }
}

/// The metadata keys of one architecture, with its name as prefix.
pub(super) struct Keys<'a> {
    pub metadata: &'a Metadata,
    pub prefix: &'a str,
}

impl<'a> Keys<'a> {
    /// The keys of a file of this architecture, as in `general.architecture`.
    pub fn of(metadata: &'a Metadata) -> Result<Self> {
        Ok(Self { metadata, prefix: metadata.str("general.architecture")? })
    }

    /// The pairs of this architecture: short key and value.
    fn pairs(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let prefix = self.prefix;
        self.metadata.iter().filter_map(move |(k, v)| Some((k.strip_prefix(prefix)?.strip_prefix('.')?, v)))
    }

    /// Rejects values that would change the computation and that no model of this family has.
    pub fn refuse_unsupported(&self, family: &Family) -> Result<()> {
        for (key, value) in self.pairs() {
            let neutral = match entry(key) {
                Some(Neutral(numbers)) => numbers,
                Some(ReadBy(reads, numbers)) if !reads(family) => numbers,
                _ => continue,
            };
            crate::ensure!(
                is_one_of(value, neutral),
                "GGUF metadata key '{}': {} changes the model in a way that is not supported for {}; expected {}",
                self.full(key),
                value.describe(),
                family.architecture.model_type(),
                neutral.iter().map(f64::to_string).collect::<Vec<_>>().join(" or ")
            );
        }
        Ok(())
    }

    /// The full name of a key.
    pub fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    pub fn has(&self, key: &str) -> bool {
        self.metadata.contains(&self.full(key))
    }

    /// A size. Some files give one per layer, which must be equal.
    pub fn size(&self, key: &str) -> Result<usize> {
        let key = self.full(key);
        let number = match self.metadata.get(&key) {
            Some(Value::Array(_)) => {
                let sizes = self.metadata.i64s(&key)?;
                let first = sizes.first().copied().unwrap_or(0);
                if let Some(other) = sizes.iter().find(|size| **size != first) {
                    crate::bail!(
                        "GGUF metadata key '{key}': layers of different sizes ({first} and {other}) are not supported; expected one number"
                    )
                }
                u64::try_from(first).with_context(|| format!("GGUF metadata key '{key}'"))?
            }
            _ => self.metadata.u64(&key)?,
        };
        usize::try_from(number).with_context(|| format!("GGUF metadata key '{key}'"))
    }

    pub fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        if self.has(key) { self.size(key) } else { Ok(default) }
    }

    /// A number, as the decimal that was meant.
    pub fn number(&self, key: &str) -> Result<f64> {
        self.metadata.f64(&self.full(key)).map(decimal)
    }

    /// A number, or the default where there is none.
    pub fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        if self.has(key) { self.number(key) } else { Ok(default) }
    }

    /// A number for which 0 means that it is not given, as llama.cpp's loader has it.
    pub fn nonzero(&self, key: &str) -> Result<Option<f64>> {
        Ok(if self.has(key) { Some(self.number(key)?).filter(|number| *number != 0.0) } else { None })
    }

    /// A truth value for each layer, from an array of truth values or numbers, if the key exists as
    /// an array. Fails if there are fewer than layers.
    pub fn flags(&self, key: &str, n_layers: usize) -> Result<Option<Vec<bool>>> {
        let key = self.full(key);
        let Some(Value::Array(values)) = self.metadata.get(&key) else { return Ok(None) };
        crate::ensure!(
            values.len() >= n_layers,
            "GGUF metadata key '{key}': expected a value for each of {n_layers} layers, found {}",
            values.len()
        );
        Ok(Some(values[..n_layers].iter().map(|value| !is_one_of(value, &[0.0])).collect()))
    }
}

/// A note on the keys of the model's architecture that are not in the table, if there are any.
pub(super) fn unknown_note(metadata: &Metadata) -> Option<String> {
    let keys = Keys::of(metadata).ok()?;
    let unknown: Vec<_> = keys.pairs().filter(|(key, _)| entry(key).is_none()).map(|(key, _)| keys.full(key)).collect();
    (!unknown.is_empty())
        .then(|| format!("GGUF metadata that Longreach does not know is ignored: {}", unknown.join(", ")))
}

/// The shortest decimal number that rounds to the stored f32: 1e-5, not 9.99999974e-6.
pub(super) fn decimal(stored: f64) -> f64 {
    let narrow = stored as f32;
    if f64::from(narrow) == stored { narrow.to_string().parse().unwrap_or(stored) } else { stored }
}
