//! [`ModelConfig`] from the metadata of a GGUF file.
//!
//! The keys are documented in <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md> and
//! listed in `gguf_keys.rs`. Absent keys have the defaults of llama.cpp's loader,
//! and a model computes what its own configuration means in transformers: windows of Mistral and
//! Phi-3, which llama.cpp ignores, are windows. Some facts are only in the tensors: no
//! `output.weight` means tied embeddings, and `attn_q.bias` means a bias.
//! `rope_gguf.rs` reads the rotation.

use super::families::{self, AttentionBias, Family, ScoreScale, Windows};
use super::gguf_keys::Keys;
use super::rope_gguf;
use crate::error::{Context, Result};
use crate::formats::dtype::DType;
use crate::formats::gguf::{Gguf, Metadata};
use crate::model::config::{LayerConfig, ModelConfig};

/// SmolLM3's layers without rotation: every fourth.
const UNROTATED_EVERY: usize = 4;
/// The number of layers by which llama.cpp recognises Gemma 3 27B, which has its own score scale.
const GEMMA_27B_LAYERS: usize = 62;

impl ModelConfig {
    /// Reads the configuration of the model in a GGUF file.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        refuse_other_files(&gguf.metadata)?;
        let keys = Keys::of(&gguf.metadata)?;
        let family = family_of(&keys)?;
        keys.refuse_unsupported(family)?;
        let (hidden, n_heads) = (keys.size("embedding_length")?, keys.size("attention.head_count")?);
        crate::ensure!(n_heads > 0, "{}: expected a positive number, found 0", keys.full("attention.head_count"));
        let head_dim = keys.size_or("attention.key_length", hidden / n_heads)?;
        for key in ["attention.value_length", "attention.key_length_swa", "attention.value_length_swa"] {
            let found = keys.size_or(key, head_dim)?;
            crate::ensure!(
                found == head_dim,
                "{}: heads of {found} channels are not supported; expected {head_dim} as {}",
                keys.full(key),
                keys.full("attention.key_length")
            );
        }
        let Some(embedding) = gguf.info("token_embd.weight") else {
            crate::bail!("tensor 'token_embd.weight' is missing")
        };
        let max_positions = keys.size("context_length")?;
        let scale = score_scale(&keys, family, head_dim, hidden / n_heads)?;
        let mut layers = LayerConfig::all_full(keys.size("block_count")?, head_dim)?;
        let windows = windows(&keys, family, layers.len(), max_positions)?;
        let rotates = rotates(&keys, family, layers.len())?;
        let full = rope_gguf::full_layers(gguf, &keys, family, head_dim, max_positions)?;
        let of_windows = rope_gguf::window_layers(&keys, family, &full)?;
        let mut ropes = vec![full.clone()];
        if windows.iter().any(Option::is_some) && of_windows != full {
            ropes.push(of_windows);
        }
        for (i, layer) in layers.iter_mut().enumerate() {
            let rope = if windows[i].is_some() { ropes.len() - 1 } else { 0 };
            *layer = LayerConfig { window: windows[i], scale, rope: rotates[i].then_some(rope) };
        }
        let has = |name: &str| gguf.info(name).is_some();
        let factor = |key: &str| Ok::<f64, crate::error::Error>(keys.nonzero(key)?.unwrap_or(1.0));
        let embedding_scale = factor("embedding_scale")?;
        let config = ModelConfig {
            architecture: family.architecture,
            hidden,
            inner: keys.size("feed_forward_length")?,
            layers,
            n_heads,
            n_kv_heads: keys.size_or("attention.head_count_kv", n_heads)?,
            head_dim,
            vocab: embedding.shape.first().copied().unwrap_or(0),
            max_positions: full.promised_positions(max_positions),
            rms_eps: keys.number("attention.layer_norm_rms_epsilon")?,
            ropes,
            norms: family.norms,
            tied: !has("output.weight"),
            qkv_bias: family.attention_bias == AttentionBias::Qkv
                || has("blk.0.attn_q.bias")
                || has("blk.0.attn_qkv.bias"),
            o_bias: has("blk.0.attn_output.bias"),
            mlp_bias: has("blk.0.ffn_gate.bias"),
            qk_norm: family.qk_norm,
            fused: family.fused,
            activation: family.activation.1,
            embed_scale: match family.scales_embedding {
                true => families::embed_scale(hidden, DType::F32),
                false => embedding_scale,
            },
            noise_scale: embedding_scale,
            residual_scale: factor("residual_scale")?,
            logit_scale: 1.0 / factor("logit_scale")?,
            logit_softcap: keys.nonzero("final_logit_softcapping")?,
            bos: token(&gguf.metadata, "tokenizer.ggml.bos_token_id")?,
            eos: ends(&gguf.metadata)?,
            hf_json: None,
        };
        config.validate()?;
        Ok(config)
    }
}

/// Rejects GGUF files that hold something other than a model.
fn refuse_other_files(metadata: &Metadata) -> Result<()> {
    if metadata.contains("general.type") {
        let kind = metadata.str("general.type")?;
        crate::ensure!(
            kind == "model",
            "general.type is '{kind}': the file is not a whole model; expected the file of a model"
        );
    }
    Ok(())
}

/// The family of the file. llama.cpp has one name for Llama and Mistral, and one for OLMo 2 and 3;
/// the window tells them apart.
fn family_of(keys: &Keys) -> Result<&'static Family> {
    let windowed = keys.size_or("attention.sliding_window", 0)? > 0;
    let of_name = || families::of_gguf(keys.prefix);
    match of_name().find(|family| (family.windows != Windows::Never) == windowed).or(of_name().next()) {
        Some(family) => Ok(family),
        None => {
            let mut names: Vec<_> = families::ALL.iter().flat_map(|family| family.gguf).copied().collect();
            names.dedup();
            crate::bail!(
                "general.architecture '{}' is not supported; expected one of {}",
                keys.prefix,
                names.join(", ")
            )
        }
    }
}

/// The factor of attention scores.
fn score_scale(keys: &Keys, family: &Family, head_dim: usize, hidden_of_head: usize) -> Result<f64> {
    if family.score_scale != ScoreScale::HeadDim
        && let Some(scale) = keys.nonzero("attention.scale")?
    {
        return Ok(scale);
    }
    Ok(usual_scale(family, keys.size("block_count")?, head_dim, hidden_of_head))
}

/// The factor of attention scores that llama.cpp takes by itself. Its converter drops Gemma's
/// `query_pre_attn_scalar`, which is the head size, except in the 27B model.
pub(super) fn usual_scale(family: &Family, n_layers: usize, head_dim: usize, hidden_of_head: usize) -> f64 {
    let is_27b = matches!(family.score_scale, ScoreScale::InverseRoot(..)) && n_layers == GEMMA_27B_LAYERS;
    1.0 / (if is_27b { hidden_of_head } else { head_dim } as f64).sqrt()
}

/// Whether each layer of a family with unrotated layers rotates, where the file does not say.
pub(super) fn usual_rotation(n_layers: usize) -> Vec<bool> {
    (1..=n_layers).map(|i| i % UNROTATED_EVERY != 0).collect()
}

/// Whether each of the layers has a window, all but every n-th.
pub(super) fn usual_windows(n_layers: usize, n: usize) -> Vec<bool> {
    (0..n_layers).map(|i| n == 0 || (i + 1) % n != 0).collect()
}

/// The window of each layer.
fn windows(keys: &Keys, family: &Family, n_layers: usize, max_positions: usize) -> Result<Vec<Option<usize>>> {
    let window = keys.size_or("attention.sliding_window", 0)?;
    if window == 0 {
        return Ok(vec![None; n_layers]);
    }
    let pattern = "attention.sliding_window_pattern";
    let slides: Vec<bool> = match (keys.flags(pattern, n_layers)?, family.windows) {
        (Some(flags), _) => flags,
        (None, _) if keys.has(pattern) => usual_windows(n_layers, keys.size(pattern)?),
        (None, Windows::EveryLayer) => vec![true; n_layers],
        (None, Windows::Pattern { every: n, .. }) => usual_windows(n_layers, n),
        (None, _) if window >= max_positions => vec![false; n_layers],
        (None, _) => crate::bail!(
            "{}: the file does not say which layers have the window of {window} tokens; expected {}, or no window",
            keys.full("attention.sliding_window"),
            keys.full(pattern)
        ),
    };
    Ok(slides.into_iter().map(|slides| slides.then_some(window)).collect())
}

/// Whether each layer rotates queries and keys.
fn rotates(keys: &Keys, family: &Family, n_layers: usize) -> Result<Vec<bool>> {
    if family.unrotated_layers {
        return Ok(keys.flags("attention.rope_pattern", n_layers)?.unwrap_or_else(|| usual_rotation(n_layers)));
    }
    // In Granite's files this key says whether there is a rotation at all.
    let finetuned = keys.full("rope.scaling.finetuned");
    let off = family.multipliers && keys.metadata.contains(&finetuned) && !keys.metadata.bool(&finetuned)?;
    Ok(vec![!off; n_layers])
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
#[path = "config_gguf_tests.rs"]
mod tests;
