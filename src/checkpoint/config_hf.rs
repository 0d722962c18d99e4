//! [`ModelConfig`] from a Hugging Face `config.json`.
//!
//! The table of the model's family ([`families`]) says which keys there are and
//! what absent ones mean. An unsupported setting that would change the result is an error that
//! names the setting. `config_hf_write.rs` is the way back; for GGUF files
//! see [`config_gguf`](super::config_gguf).

use super::families::{self, AttentionBias, Family, ScoreScale};
use super::json_fields::{Fields, required};
use super::rope_hf::Sizes;
use super::{layers_hf, text_config};
use crate::error::{Error, Result};
use crate::formats::dtype::DType;
use crate::kernels::activation::Activation;
use crate::model::config::ModelConfig;
use crate::small_file;
use serde_json::Value;

impl ModelConfig {
    /// Parses a `config.json`, or the text part of a multimodal model's. Keeps the text, so that
    /// [`ModelConfig::to_hf_json`] returns it unchanged.
    ///
    /// The embedding scale of Gemma is that of weights in f32.
    pub fn from_hf_json(text: &str) -> Result<Self> {
        let value = small_file::parse_json(text)?;
        let model_type = required(Fields::of(&value)?.text("model_type")?, "model_type")?;
        let config = match text_config::of(&value, model_type)? {
            Some((family, part)) => {
                let config = read(family, &Fields::of(&part)?)?;
                ModelConfig { hf_json: Some(serde_json::to_string_pretty(&part)? + "\n"), ..config }
            }
            None => {
                let config = read(families::of_model_type(model_type)?, &Fields::of(&value)?)?;
                ModelConfig { hf_json: Some(text.to_owned()), ..config }
            }
        };
        config.validate()?;
        Ok(config)
    }
}

/// The configuration of a model of a family.
fn read(family: &Family, fields: &Fields) -> Result<ModelConfig> {
    refuse_unsupported(family, fields)?;
    let d = &family.defaults;
    // A null value means "derive it from the other keys"; an absent key means the class's default.
    let size = |key: &str, default: usize| match fields.size(key)? {
        None if fields.has(key) => required(None, key),
        given => Ok(given.unwrap_or(default)),
    };
    let (hidden, n_heads) = (size("hidden_size", d.hidden)?, size("num_attention_heads", d.n_heads)?);
    crate::ensure!(n_heads > 0, "num_attention_heads: expected a positive number, found 0");
    let head_dim = match fields.size("head_dim")?.or(d.head_dim.filter(|_| !fields.has("head_dim"))) {
        Some(given) => given,
        None => {
            crate::ensure!(
                hidden % n_heads == 0,
                "hidden_size ({hidden}) is no multiple of num_attention_heads ({n_heads}), and head_dim is missing"
            );
            hidden / n_heads
        }
    };
    let n_kv_heads = match fields.size("num_key_value_heads")? {
        Some(given) => given,
        None if fields.has("num_key_value_heads") => n_heads,
        None => d.n_kv_heads.unwrap_or(n_heads),
    };
    let positions = size("max_position_embeddings", d.max_positions)?;
    let n_layers = size("num_hidden_layers", d.n_layers)?;
    let (mut layers, ropes) = layers_hf::layers(family, fields, Sizes { head_dim, positions }, n_layers)?;
    if let Some(scale) = score_scale(family, fields)? {
        layers.iter_mut().for_each(|layer| layer.scale = scale);
    }
    let flag = |key: &str, default: bool| Ok::<bool, Error>(fields.flag(key)?.unwrap_or(default));
    let number = |key: &str, default: f64| Ok::<f64, Error>(fields.number(key)?.unwrap_or(default));
    let bias = family.attention_bias == AttentionBias::Key && flag("attention_bias", false)?;
    let multiplier = |key: &str| if family.multipliers { number(key, 1.0) } else { Ok(1.0) };
    let embedding_multiplier = multiplier("embedding_multiplier")?;
    let softcap = if family.softcaps_logits { fields.number("final_logit_softcapping")? } else { None };
    Ok(ModelConfig {
        architecture: family.architecture,
        hidden,
        inner: size("intermediate_size", d.inner)?,
        layers,
        n_heads,
        n_kv_heads,
        head_dim,
        vocab: size("vocab_size", d.vocab)?,
        max_positions: ropes[0].promised_positions(positions),
        rms_eps: number("rms_norm_eps", d.rms_eps)?,
        ropes,
        norms: family.norms,
        tied: flag("tie_word_embeddings", d.tied)?,
        qkv_bias: bias || family.attention_bias == AttentionBias::Qkv,
        o_bias: bias,
        mlp_bias: family.mlp_bias && flag("mlp_bias", false)?,
        qk_norm: family.qk_norm,
        fused: family.fused,
        activation: activation(family, fields)?,
        embed_scale: if family.scales_embedding {
            families::embed_scale(hidden, DType::F32)
        } else {
            embedding_multiplier
        },
        noise_scale: embedding_multiplier,
        residual_scale: multiplier("residual_multiplier")?,
        logit_scale: 1.0 / multiplier("logits_scaling")?,
        logit_softcap: softcap,
        bos: ids(fields, "bos_token_id", d.bos.as_slice())?.first().copied(),
        eos: ids(fields, "eos_token_id", d.eos)?,
        hf_json: None,
    })
}

/// The factor of the scores, unless it is 1/√head_dim.
fn score_scale(family: &Family, fields: &Fields) -> Result<Option<f64>> {
    Ok(match family.score_scale {
        ScoreScale::HeadDim => None,
        ScoreScale::InverseRoot(key, default) => Some(1.0 / fields.number(key)?.unwrap_or(default).sqrt()),
        ScoreScale::Value(key, default) => Some(fields.number(key)?.unwrap_or(default)),
    })
}

/// transformers' names of the activations, the first one of each for writing.
pub(super) const ACTIVATIONS: [(&str, Activation); 6] = [
    ("silu", Activation::SwiGlu),
    ("swish", Activation::SwiGlu),
    ("gelu_pytorch_tanh", Activation::GeGluTanh),
    ("gelu_new", Activation::GeGluTanh),
    ("gelu_fast", Activation::GeGluTanh),
    ("gelu_accurate", Activation::GeGluTanh),
];

fn activation(family: &Family, fields: &Fields) -> Result<Activation> {
    let (key, default) = family.activation;
    let Some(name) = fields.text(key)? else { return Ok(default) };
    match ACTIVATIONS.iter().find(|(known, _)| *known == name) {
        Some((_, activation)) => Ok(*activation),
        None => crate::bail!("{key} '{name}' is not supported; expected 'silu' or 'gelu_pytorch_tanh'"),
    }
}

/// A token id or a list of ids. An absent key means `default`, null means no id.
fn ids(fields: &Fields, key: &str, default: &[u32]) -> Result<Vec<u32>> {
    let id = |value: &Value| -> Result<u32> {
        let id = value.as_u64().and_then(|v| u32::try_from(v).ok());
        id.ok_or_else(|| fields.wrong(key, "a token id or a list of them", value))
    };
    match fields.get(key) {
        None if fields.has(key) => Ok(Vec::new()),
        None => Ok(default.to_vec()),
        Some(Value::Array(values)) => values.iter().map(id).collect(),
        Some(value) => Ok(vec![id(value)?]),
    }
}

/// Rejects settings that change the computation and that this engine does not support.
fn refuse_unsupported(family: &Family, fields: &Fields) -> Result<()> {
    if let Some(value) = fields.get("quantization_config") {
        let method = value.get("quant_method").and_then(Value::as_str).unwrap_or("unnamed method");
        crate::bail!(
            "quantization_config ({method}) is not supported; expected a model in F32, F16 or BF16, or a GGUF file"
        );
    }
    for key in family.refused_flags {
        crate::ensure!(!fields.flag(key)?.unwrap_or(false), "{key}: true is not supported; expected false");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::QkNorm;
    use crate::model::rope_config::RopeScaling;
    use serde_json::json;

    fn base() -> Value {
        json!({"model_type": "llama", "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3,
               "num_attention_heads": 4, "vocab_size": 320})
    }

    fn with(pairs: &[(&str, Value)]) -> Result<ModelConfig> {
        let mut value = base();
        for (key, v) in pairs {
            value[*key] = v.clone();
        }
        ModelConfig::from_hf_json(&value.to_string())
    }

    #[test]
    fn absent_keys_take_the_defaults_of_transformers() {
        let c = with(&[]).unwrap();
        assert_eq!((c.head_dim, c.n_kv_heads, c.max_positions, c.rms_eps), (16, 4, 2048, 1e-6));
        assert_eq!((c.ropes[0].theta, c.ropes[0].scaling.clone(), c.tied), (1e4, RopeScaling::None, false));
        assert_eq!((c.bos, c.eos, c.qkv_bias, c.qk_norm), (Some(1), vec![2], false, QkNorm::None));
        let kv = ("num_key_value_heads", json!(2));
        let c = with(&[("model_type", json!("qwen3")), ("head_dim", json!(null)), kv.clone()]).unwrap();
        assert_eq!((c.head_dim, c.qk_norm, c.bos, c.eos.len()), (16, QkNorm::PerHead, None, 0));
        assert_eq!(with(&[("model_type", json!("qwen3")), kv.clone()]).unwrap().head_dim, 128);
        let c = with(&[("model_type", json!("qwen2")), kv]).unwrap();
        assert_eq!((c.qkv_bias, c.o_bias), (true, false));
        let c = with(&[("attention_bias", json!(true)), ("eos_token_id", json!([5, 6]))]).unwrap();
        assert_eq!((c.qkv_bias, c.o_bias, c.eos), (true, true, vec![5, 6]));
    }

    /// The fields of a family that depend on keys of its own.
    #[test]
    fn the_keys_of_a_family_count() {
        let gemma = |pairs: &[(&str, Value)]| {
            with(&[&[("model_type", json!("gemma3_text")), ("hidden_size", json!(640))], pairs].concat()).unwrap()
        };
        let c = gemma(&[]);
        assert_eq!(c.noise_scale, 1.0, "the embedding module multiplies itself");
        assert_eq!((c.tied, c.activation, c.embed_scale), (true, Activation::GeGluTanh, f64::from(640f32.sqrt())));
        assert_eq!(
            (c.layers[0].scale, c.logit_softcap, c.bos, c.eos.as_slice()),
            (1.0 / 16.0, None, Some(2), &[1][..])
        );
        let c = gemma(&[("query_pre_attn_scalar", json!(64)), ("final_logit_softcapping", json!(30.0))]);
        assert_eq!((c.layers[0].scale, c.logit_softcap), (0.125, Some(30.0)));
        let granite = [("embedding_multiplier", 12.0), ("residual_multiplier", 0.22), ("logits_scaling", 8.0)];
        let mut pairs: Vec<_> = granite.iter().map(|(key, value)| (*key, json!(value))).collect();
        pairs.extend([("model_type", json!("granite")), ("attention_multiplier", json!(0.015625))]);
        let c = with(&pairs).unwrap();
        assert_eq!((c.embed_scale, c.residual_scale, c.logit_scale, c.layers[0].scale), (12.0, 0.22, 0.125, 0.015625));
        assert_eq!(c.noise_scale, 12.0);
        pairs[3].1 = json!("llama");
        let c = with(&pairs).unwrap();
        assert_eq!((c.embed_scale, c.residual_scale, c.logit_scale, c.layers[0].scale), (1.0, 1.0, 1.0, 0.25));
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (pairs, word) in [
            (vec![("model_type", json!("gemma2"))], "gemma2"),
            (vec![("model_type", json!(null))], "model_type"),
            (vec![("hidden_act", json!("gelu"))], "gelu"),
            (vec![("model_type", json!("gemma3_text")), ("use_bidirectional_attention", json!(true))], "bidirectional"),
            (vec![("quantization_config", json!({"quant_method": "gptq"}))], "gptq"),
            (vec![("hidden_size", json!(0))], "hidden_size"),
            (vec![("hidden_size", json!(-64))], "hidden_size"),
            (vec![("hidden_size", json!("64"))], "hidden_size"),
            (vec![("vocab_size", json!(null))], "'vocab_size' is missing"),
            (vec![("num_attention_heads", json!(0))], "num_attention_heads"),
            (vec![("num_attention_heads", json!(3))], "no multiple"),
            (vec![("eos_token_id", json!("</s>"))], "eos_token_id"),
        ] {
            let e = with(&pairs).expect_err(word).to_string();
            assert!(e.contains(word), "{word}: {e}");
        }
        assert!(ModelConfig::from_hf_json("[1]").is_err());
        assert!(ModelConfig::from_hf_json("{").unwrap_err().to_string().contains("invalid JSON"));
    }
}
