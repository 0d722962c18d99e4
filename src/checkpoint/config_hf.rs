//! [`ModelConfig`] from a Hugging Face `config.json` and back.
//!
//! This file reads the formats of transformers 4 (`rope_theta`, `rope_scaling`) and 5
//! (`rope_parameters`), with transformers' defaults for absent keys. An unsupported setting that
//! would change the result is an error that names the setting. For GGUF files see
//! [`config_gguf`](super::config_gguf).

use super::json_fields::Fields;
use crate::error::{Context, Result};
use crate::model::config::{Architecture, BlockNorms, LayerConfig, ModelConfig, QkNorm};
use crate::model::rope_config::{RopeConfig, RopeScaling};
use serde_json::{Value, json};

impl ModelConfig {
    /// Parses a `config.json`. Keeps the text, so that [`ModelConfig::to_hf_json`] returns it
    /// unchanged.
    pub fn from_hf_json(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).context("invalid JSON")?;
        let fields = Fields::of(&value)?;
        let model_type = fields.text("model_type")?;
        let architecture = Architecture::parse(model_type.context_absent("model_type")?)?;
        refuse_unsupported(&fields, architecture)?;
        let mut config = sizes(&fields, architecture)?;
        config.ropes = vec![rope(&fields, config.head_dim)?];
        config.hf_json = Some(text.to_owned());
        config.validate()?;
        Ok(config)
    }

    /// The `config.json` of this model: the original text, or one made from the fields.
    ///
    /// Fails if Hugging Face's format cannot express the model.
    pub fn to_hf_json(&self) -> Result<String> {
        if let Some(text) = &self.hf_json {
            return Ok(text.clone());
        }
        let attention_bias = match self.architecture {
            Architecture::Llama | Architecture::Qwen3 => self.qkv_bias,
            Architecture::Mistral | Architecture::Qwen2 => false,
        };
        let (expected_qkv, expected_o) = match self.architecture {
            Architecture::Qwen2 => (true, false),
            _ => (attention_bias, attention_bias),
        };
        crate::ensure!(
            self.qkv_bias == expected_qkv && self.o_bias == expected_o,
            "Hugging Face's config.json cannot express a {} model with biases on only some of its attention projections",
            self.architecture.model_type()
        );
        crate::ensure!(
            self.has_uniform_layers() && self.norms == BlockNorms::Before,
            "a {} model whose layers attend in different ways, or with other norms, has no config.json that is known here",
            self.architecture.model_type()
        );
        let neutral = Self::default();
        let has_only_known_parts = self.fused == neutral.fused
            && self.activation == neutral.activation
            && self.qk_norm != QkNorm::FullWidth
            && self.logit_softcap.is_none()
            && [self.embed_scale, self.residual_scale, self.logit_scale] == [1.0; 3]
            && self.ropes.iter().all(|r| r.rotary_dim == self.head_dim && r.query_scale.is_none());
        crate::ensure!(
            has_only_known_parts,
            "a {} model with factors, an activation or projections of another family has no config.json that is known here",
            self.architecture.model_type()
        );
        let mut value = json!({
            "architectures": [self.architecture.hf_class()],
            "attention_bias": attention_bias,
            "bos_token_id": self.bos,
            "dtype": "float32",
            "eos_token_id": match self.eos.as_slice() { [] => json!(null), [one] => json!(one), many => json!(many) },
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "intermediate_size": self.inner,
            "max_position_embeddings": self.max_positions,
            "mlp_bias": self.mlp_bias,
            "model_type": self.architecture.model_type(),
            "num_attention_heads": self.n_heads,
            "num_hidden_layers": self.n_layers(),
            "num_key_value_heads": self.n_kv_heads,
            "rms_norm_eps": self.rms_eps,
            "rope_scaling": self.rope_scaling_json()?,
            "rope_theta": self.ropes[0].theta,
            "tie_word_embeddings": self.tied,
            "torch_dtype": "float32",
            "vocab_size": self.vocab,
        });
        if self.architecture == Architecture::Mistral {
            value["sliding_window"] = Value::Null; // an absent key would mean 4096
        }
        Ok(serde_json::to_string_pretty(&value)? + "\n")
    }

    fn rope_scaling_json(&self) -> Result<Value> {
        let recovered;
        let scaling = match &self.ropes[0].scaling {
            RopeScaling::Factors(_) => {
                recovered = self.ropes[0].llama3_from_factors()?;
                &recovered
            }
            known => known,
        };
        Ok(match scaling {
            RopeScaling::None | RopeScaling::Factors(_) => Value::Null,
            RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": original_max_positions,
            }),
            RopeScaling::Yarn { .. } | RopeScaling::LongRope { .. } | RopeScaling::Dynamic { .. } => {
                crate::bail!("this scaling of RoPE has no config.json that is known here: {scaling:?}")
            }
        })
    }
}

/// `Option::ok_or` with the error message for a missing key.
trait Required<T> {
    fn context_absent(self, key: &str) -> Result<T>;
}

impl<T> Required<T> for Option<T> {
    fn context_absent(self, key: &str) -> Result<T> {
        self.ok_or_else(|| crate::error::Error::new(format!("'{key}' is missing")))
    }
}

/// All fields except RoPE, with transformers' defaults.
fn sizes(fields: &Fields, architecture: Architecture) -> Result<ModelConfig> {
    use Architecture::{Llama, Mistral, Qwen2, Qwen3};
    let required = |key: &str| fields.size(key)?.context_absent(key);
    let (hidden, n_heads) = (required("hidden_size")?, required("num_attention_heads")?);
    crate::ensure!(n_heads > 0, "num_attention_heads: expected a positive number, found 0");
    // A null value means "derive it from the other keys"; an absent key means the class's default.
    let head_dim = match fields.size("head_dim")? {
        Some(given) => given,
        None if architecture == Qwen3 && !fields.has("head_dim") => 128,
        None => {
            crate::ensure!(
                hidden % n_heads == 0,
                "hidden_size ({hidden}) is no multiple of num_attention_heads ({n_heads}), and head_dim is missing"
            );
            hidden / n_heads
        }
    };
    let n_kv_heads = match (fields.size("num_key_value_heads")?, fields.has("num_key_value_heads"), architecture) {
        (Some(given), ..) => given,
        (None, true, _) | (None, false, Llama) => n_heads,
        (None, false, Mistral) => 8,
        (None, false, Qwen2 | Qwen3) => 32,
    };
    let max_positions = fields.size("max_position_embeddings")?.unwrap_or(match architecture {
        Llama => 2048,
        Mistral => 131_072,
        Qwen2 | Qwen3 => 32_768,
    });
    let bias = matches!(architecture, Llama | Qwen3) && fields.flag("attention_bias")?.unwrap_or(false);
    let sentencepiece = matches!(architecture, Llama | Mistral);
    let bos = ids(fields, "bos_token_id", if sentencepiece { &[1] } else { &[] })?;
    Ok(ModelConfig {
        architecture,
        hidden,
        inner: required("intermediate_size")?,
        layers: LayerConfig::all_full(required("num_hidden_layers")?, head_dim)?,
        n_heads,
        n_kv_heads,
        head_dim,
        vocab: required("vocab_size")?,
        max_positions,
        rms_eps: fields.number("rms_norm_eps")?.unwrap_or(1e-6),
        ropes: vec![RopeConfig::plain(1e4, head_dim)],
        tied: fields.flag("tie_word_embeddings")?.unwrap_or(false),
        qkv_bias: bias || architecture == Qwen2,
        o_bias: bias,
        mlp_bias: architecture == Llama && fields.flag("mlp_bias")?.unwrap_or(false),
        qk_norm: if architecture == Qwen3 { QkNorm::PerHead } else { QkNorm::None },
        bos: bos.first().copied(),
        eos: ids(fields, "eos_token_id", if sentencepiece { &[2] } else { &[] })?,
        ..ModelConfig::default()
    })
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
fn refuse_unsupported(fields: &Fields, architecture: Architecture) -> Result<()> {
    if let Some(value) = fields.get("quantization_config") {
        let method = value.get("quant_method").and_then(Value::as_str).unwrap_or("unnamed method");
        crate::bail!(
            "quantization_config ({method}) is not supported; expected a model in F32, F16 or BF16, or a GGUF file"
        );
    }
    if let Some(act) = fields.text("hidden_act")? {
        crate::ensure!(matches!(act, "silu" | "swish"), "hidden_act '{act}' is not supported; expected 'silu'");
    }
    refuse_partial_rotary(fields)?;
    refuse_sliding_window(fields, architecture)
}

fn refuse_partial_rotary(fields: &Fields) -> Result<()> {
    let factor = fields.number("partial_rotary_factor")?.unwrap_or(1.0);
    crate::ensure!(factor == 1.0, "partial_rotary_factor {factor} is not supported; expected 1");
    Ok(())
}

fn refuse_sliding_window(fields: &Fields, architecture: Architecture) -> Result<()> {
    if let Some(Value::Array(types)) = fields.get("layer_types")
        && let Some(other) = types.iter().find(|t| t.as_str() != Some("full_attention"))
    {
        crate::bail!("layer_types has {other}, which is not supported; expected only \"full_attention\"");
    }
    match architecture {
        Architecture::Llama => {}
        Architecture::Qwen2 | Architecture::Qwen3 => crate::ensure!(
            !fields.flag("use_sliding_window")?.unwrap_or(false),
            "sliding-window attention (use_sliding_window: true) is not supported; expected full attention"
        ),
        Architecture::Mistral => {
            let default = if fields.has("sliding_window") { None } else { Some(4096) };
            let window = fields.size("sliding_window")?.or(default);
            let positions = fields.size("max_position_embeddings")?.unwrap_or(131_072);
            if let Some(window) = window.filter(|&w| w < positions) {
                crate::bail!(
                    "sliding-window attention (sliding_window: {window}, below max_position_embeddings {positions}) is not \
                     supported; expected sliding_window: null"
                );
            }
        }
    }
    Ok(())
}

/// RoPE from the keys of transformers 5 (`rope_parameters`) or 4 (`rope_theta` and `rope_scaling`).
fn rope(fields: &Fields, head_dim: usize) -> Result<RopeConfig> {
    let outer_theta = fields.number("rope_theta")?.unwrap_or(1e4);
    let key = if fields.get("rope_parameters").is_some() { "rope_parameters" } else { "rope_scaling" };
    let Some(value) = fields.get(key) else {
        return Ok(RopeConfig::plain(outer_theta, head_dim));
    };
    let read = || -> Result<RopeConfig> {
        let inner = Fields::of(value)?;
        refuse_partial_rotary(&inner)?;
        let theta = inner.number("rope_theta")?.unwrap_or(outer_theta);
        Ok(RopeConfig { scaling: scaling(&inner)?, ..RopeConfig::plain(theta, head_dim) })
    };
    read().context(key)
}

fn scaling(fields: &Fields) -> Result<RopeScaling> {
    if let Some(per_layer) = ["full_attention", "sliding_attention"].into_iter().find(|key| fields.has(key)) {
        crate::bail!(
            "RoPE parameters per layer type ('{per_layer}') are not supported; expected one set for all layers"
        );
    }
    let kind = fields.text("rope_type")?.or(fields.text("type")?).unwrap_or("default");
    let required = |key: &str| fields.number(key)?.context_absent(key);
    Ok(match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: required("factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: required("factor")?,
            low_freq_factor: required("low_freq_factor")?,
            high_freq_factor: required("high_freq_factor")?,
            original_max_positions: fields
                .size("original_max_position_embeddings")?
                .context_absent("original_max_position_embeddings")?,
        },
        other => crate::bail!("RoPE type '{other}' is not supported; expected default, linear or llama3"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::testing::small;

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

    #[test]
    fn both_spellings_of_rope_mean_the_same() {
        let parameters = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                "original_max_position_embeddings": 64});
        let old = with(&[("rope_theta", json!(5e5)), ("rope_scaling", parameters.clone())]).unwrap();
        let mut new = parameters;
        new["rope_theta"] = json!(5e5);
        let new = with(&[("rope_parameters", new), ("rope_scaling", json!(null))]).unwrap();
        assert_eq!(old.ropes, new.ropes);
        assert!(matches!(new.ropes[0].scaling, RopeScaling::Llama3 { original_max_positions: 64, .. }));
        let legacy = with(&[("rope_scaling", json!({"type": "linear", "factor": 2.0}))]).unwrap();
        assert_eq!(legacy.ropes[0].scaling, RopeScaling::Linear { factor: 2.0 });
        let plain = with(&[("rope_parameters", json!({"rope_type": "default", "rope_theta": 1e6}))]).unwrap();
        assert_eq!(plain.ropes, [RopeConfig::plain(1e6, 16)]);
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let yarn = json!({"rope_type": "yarn", "factor": 4.0});
        for (pairs, word) in [
            (vec![("model_type", json!("gemma2"))], "gemma2"),
            (vec![("model_type", json!(null))], "model_type"),
            (vec![("hidden_act", json!("gelu"))], "gelu"),
            (vec![("rope_scaling", yarn)], "yarn"),
            (vec![("rope_parameters", json!({"full_attention": {}}))], "per layer type"),
            (vec![("rope_parameters", json!({"partial_rotary_factor": 0.5}))], "partial_rotary_factor"),
            (vec![("quantization_config", json!({"quant_method": "gptq"}))], "gptq"),
            (vec![("model_type", json!("qwen2")), ("use_sliding_window", json!(true))], "use_sliding_window"),
            (vec![("layer_types", json!(["full_attention", "sliding_attention"]))], "sliding_attention"),
            (vec![("model_type", json!("mistral"))], "sliding_window: 4096"),
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
        let window = |w: Value| {
            let heads = ("num_key_value_heads", json!(2));
            with(&[("model_type", json!("mistral")), ("sliding_window", w), heads])
        };
        window(json!(null)).unwrap();
        window(json!(1_000_000)).unwrap();
        assert!(ModelConfig::from_hf_json("[1]").is_err());
        assert!(ModelConfig::from_hf_json("{").unwrap_err().to_string().contains("invalid JSON"));
    }

    #[test]
    fn a_made_config_reads_back_the_same_and_a_read_one_is_kept() {
        let scalings = [
            RopeScaling::None,
            RopeScaling::Linear { factor: 2.0 },
            RopeScaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_positions: 64,
            },
        ];
        for (architecture, scaling) in Architecture::ALL.into_iter().zip(scalings.into_iter().cycle()) {
            let mut config = small();
            config.architecture = architecture;
            config.ropes[0].scaling = scaling;
            config.qkv_bias = architecture == Architecture::Qwen2;
            if architecture == Architecture::Qwen3 {
                config.qk_norm = QkNorm::PerHead;
            }
            let text = config.to_hf_json().unwrap();
            let read = ModelConfig::from_hf_json(&text).unwrap();
            assert_eq!(read.to_hf_json().unwrap(), text);
            assert_eq!(ModelConfig { hf_json: None, ..read }, config);
        }
        let mut config = small();
        config.qkv_bias = true;
        assert!(config.to_hf_json().is_err(), "Llama has biases on all four projections or on none");
        for change in [
            |c: &mut ModelConfig| c.layers[1].window = Some(5),
            |c: &mut ModelConfig| c.layers[0].rope = None,
            |c: &mut ModelConfig| c.layers[0].scale = 0.25,
            |c: &mut ModelConfig| c.norms = BlockNorms::After,
        ] {
            let mut config = small();
            change(&mut config);
            assert!(config.to_hf_json().is_err(), "a Llama model has no such layers: {:?}", config.layers);
        }
    }
}
