//! [`ModelConfig`] from the metadata of a GGUF file.
//!
//! The keys are documented in <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Some
//! facts are only in the tensors: no `output.weight` means tied embeddings, `attn_q.bias` means a
//! bias, and `rope_freqs.weight` has Llama 3's RoPE scaling as divisors.

use super::families::{self, AttentionBias, Family};
use crate::error::{Context, Result};
use crate::formats::gguf::{Gguf, Metadata};
use crate::model::config::{LayerConfig, ModelConfig};
use crate::model::rope_config::{RopeConfig, RopeScaling};

impl ModelConfig {
    /// Reads the configuration of the model in a GGUF file.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let keys = Keys::of(&gguf.metadata)?;
        let (hidden, n_heads) = (keys.size("embedding_length")?, keys.size("attention.head_count")?);
        crate::ensure!(n_heads > 0, "{}: expected a positive number, found 0", keys.full("attention.head_count"));
        let head_dim = keys.size_or("attention.key_length", hidden / n_heads)?;
        keys.refuse_unsupported(head_dim)?;
        let Some(embedding) = gguf.info("token_embd.weight") else {
            crate::bail!("tensor 'token_embd.weight' is missing")
        };
        let has = |name: &str| gguf.info(name).is_some();
        let config = ModelConfig {
            architecture: keys.family.architecture,
            hidden,
            inner: keys.size("feed_forward_length")?,
            layers: LayerConfig::all_full(keys.size("block_count")?, head_dim)?,
            n_heads,
            n_kv_heads: keys.size_or("attention.head_count_kv", n_heads)?,
            head_dim,
            vocab: embedding.shape.first().copied().unwrap_or(0),
            max_positions: keys.size("context_length")?,
            rms_eps: decimal(keys.metadata.f64(&keys.full("attention.layer_norm_rms_epsilon"))?),
            ropes: vec![rope(gguf, &keys, head_dim)?],
            tied: !has("output.weight"),
            qkv_bias: keys.family.attention_bias == AttentionBias::Qkv || has("blk.0.attn_q.bias"),
            o_bias: has("blk.0.attn_output.bias"),
            mlp_bias: has("blk.0.ffn_gate.bias"),
            qk_norm: keys.family.qk_norm,
            bos: token(&gguf.metadata, "tokenizer.ggml.bos_token_id")?,
            eos: ends(&gguf.metadata)?,
            ..Self::default()
        };
        config.validate()?;
        Ok(config)
    }
}

/// The metadata keys of one architecture, with its name as prefix.
struct Keys<'a> {
    metadata: &'a Metadata,
    family: &'static Family,
    /// `general.architecture`.
    name: &'a str,
}

impl<'a> Keys<'a> {
    fn of(metadata: &'a Metadata) -> Result<Self> {
        let name = metadata.str("general.architecture")?;
        let Some(family) = families::of_gguf(name).next() else {
            crate::bail!("general.architecture '{name}' is not supported")
        };
        Ok(Self { metadata, family, name })
    }

    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    fn has(&self, key: &str) -> bool {
        self.metadata.contains(&self.full(key))
    }

    fn size(&self, key: &str) -> Result<usize> {
        let key = self.full(key);
        usize::try_from(self.metadata.u64(&key)?).with_context(|| format!("GGUF metadata key '{key}'"))
    }

    fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        if self.has(key) { self.size(key) } else { Ok(default) }
    }

    fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        if self.has(key) { self.metadata.f64(&self.full(key)) } else { Ok(default) }
    }

    /// Rejects settings that change the computation and that this engine does not support.
    fn refuse_unsupported(&self, head_dim: usize) -> Result<()> {
        for (key, meaning) in [("attention.value_length", "a value head"), ("rope.dimension_count", "a rotary part")] {
            let found = self.size_or(key, head_dim)?;
            crate::ensure!(
                found == head_dim,
                "{}: {meaning} of {found} channels is not supported; expected {head_dim}, the size of a head",
                self.full(key)
            );
        }
        let experts = self.size_or("expert_count", 0)?;
        crate::ensure!(
            experts == 0,
            "{}: mixture of {experts} experts is not supported; expected 0",
            self.full("expert_count")
        );
        let window = self.size_or("attention.sliding_window", 0)?;
        crate::ensure!(
            window == 0 || window >= self.size("context_length")?,
            "{}: sliding-window attention of {window} tokens is not supported; expected full attention",
            self.full("attention.sliding_window")
        );
        Ok(())
    }
}

fn rope(gguf: &Gguf, keys: &Keys, head_dim: usize) -> Result<RopeConfig> {
    let theta = keys.number_or("rope.freq_base", 1e4)?;
    let kind = if keys.has("rope.scaling.type") { keys.metadata.str(&keys.full("rope.scaling.type"))? } else { "none" };
    let scaling = match kind {
        "none" => RopeScaling::None,
        "linear" => match keys.number_or("rope.scaling.factor", 1.0)? {
            0.0 | 1.0 => RopeScaling::None, // llama.cpp writes these for no scaling
            factor => RopeScaling::Linear { factor },
        },
        other => crate::bail!(
            "{}: RoPE scaling '{other}' is not supported; expected none or linear",
            keys.full("rope.scaling.type")
        ),
    };
    if gguf.info("rope_freqs.weight").is_none() {
        return Ok(RopeConfig { scaling, ..RopeConfig::plain(theta, head_dim) });
    }
    crate::ensure!(
        scaling == RopeScaling::None,
        "both rope_freqs.weight and linear RoPE scaling are given; expected one"
    );
    let factors = gguf.read("rope_freqs.weight")?.to_f32().context("rope_freqs.weight")?;
    Ok(RopeConfig { scaling: RopeScaling::Factors(factors), ..RopeConfig::plain(theta, head_dim) })
}

/// The shortest decimal number that rounds to the stored f32: 1e-5, not 9.99999974e-6.
fn decimal(stored: f64) -> f64 {
    let narrow = stored as f32;
    if f64::from(narrow) == stored { narrow.to_string().parse().unwrap_or(stored) } else { stored }
}

fn token(metadata: &Metadata, key: &str) -> Result<Option<u32>> {
    if !metadata.contains(key) {
        return Ok(None);
    }
    let id = metadata.u64(key)?;
    Ok(Some(u32::try_from(id).with_context(|| format!("GGUF metadata key '{key}': {id}"))?))
}

/// The tokens for end of sequence, end of turn and end of message, as far as the file has them.
fn ends(metadata: &Metadata) -> Result<Vec<u32>> {
    let mut ends = Vec::new();
    for kind in ["eos", "eot", "eom"] {
        if let Some(id) = token(metadata, &format!("tokenizer.ggml.{kind}_token_id"))?
            && !ends.contains(&id)
        {
            ends.push(id);
        }
    }
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::gguf::Value;
    use crate::formats::gguf::testing::gguf_bytes;
    use crate::formats::host_tensor::HostTensor;

    fn pairs(architecture: &str) -> Vec<(String, Value)> {
        let sizes = [("embedding_length", 16), ("feed_forward_length", 12), ("block_count", 1), ("context_length", 64)];
        let heads = [("attention.head_count", 4), ("attention.head_count_kv", 2)];
        let mut out = vec![("general.architecture".to_string(), Value::String(architecture.into()))];
        out.extend(sizes.into_iter().chain(heads).map(|(k, v)| (format!("{architecture}.{k}"), Value::U64(v))));
        out.push((format!("{architecture}.attention.layer_norm_rms_epsilon"), Value::F64(1e-5)));
        out
    }

    fn read(architecture: &str, more: &[(&str, Value)], tensors: &[(&str, HostTensor)]) -> Result<ModelConfig> {
        let pairs = pairs(architecture);
        let mut all: Vec<_> = pairs.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
        all.extend(more.iter().cloned());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), gguf_bytes(&all, tensors)).unwrap();
        ModelConfig::from_gguf(&Gguf::open(file.path())?)
    }

    fn embedding() -> (&'static str, HostTensor) {
        ("token_embd.weight", HostTensor::from_f32(&[10, 16], &[0.5; 160]))
    }

    #[test]
    fn facts_come_from_keys_and_tensors() {
        let ids = [("tokenizer.ggml.eos_token_id", Value::U64(2)), ("tokenizer.ggml.eot_token_id", Value::U64(7))];
        let c = read("llama", &ids, &[embedding()]).unwrap();
        assert_eq!((c.vocab, c.head_dim, c.n_kv_heads, c.tied, c.qkv_bias), (10, 4, 2, true, false));
        assert_eq!((c.bos, c.eos, c.ropes[0].theta), (None, vec![2, 7], 1e4));
        let output = ("output.weight", embedding().1);
        let freqs = ("rope_freqs.weight", HostTensor::from_f32(&[2], &[8.0, 8.0]));
        let bias = ("blk.0.attn_q.bias", HostTensor::from_f32(&[16], &[0.0; 16]));
        let c =
            read("llama", &[("llama.rope.freq_base", Value::F64(5e5))], &[embedding(), output, freqs, bias]).unwrap();
        assert_eq!((c.tied, c.qkv_bias, c.ropes[0].theta), (false, true, 5e5));
        assert_eq!(c.ropes[0].scaling, RopeScaling::Factors(vec![8.0, 8.0]));
        let c = read("qwen3", &[("qwen3.attention.key_length", Value::U64(16))], &[embedding()]).unwrap();
        assert_eq!((c.head_dim, c.qk_norm), (16, crate::model::config::QkNorm::PerHead));
    }

    #[test]
    fn an_epsilon_stored_in_f32_is_the_decimal_that_was_meant() {
        assert_eq!(decimal(f64::from(1e-5f32)), 1e-5);
        assert_eq!(decimal(1e-5), 1e-5);
        assert!(decimal(f64::INFINITY).is_infinite());
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (key, value, word) in [
            ("llama.expert_count", Value::U64(8), "mixture of 8 experts"),
            ("llama.rope.scaling.type", Value::String("yarn".into()), "yarn"),
            ("llama.rope.dimension_count", Value::U64(1), "rope.dimension_count"),
            ("llama.attention.sliding_window", Value::U64(16), "sliding"),
            ("llama.attention.key_length", Value::U64(0), "head_dim"),
        ] {
            let e = read("llama", &[(key, value)], &[embedding()]).unwrap_err().to_string();
            assert!(e.contains(word), "{word}: {e}");
        }
        assert!(read("gemma3", &[], &[]).unwrap_err().to_string().contains("gemma3"));
        assert!(read("llama", &[], &[]).unwrap_err().to_string().contains("token_embd.weight"));
    }
}
