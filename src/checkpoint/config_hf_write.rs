//! `config.json` from a [`ModelConfig`], for models that come from other files.
//!
//! The family's table says which keys to write, in the spelling of transformers 4, which both
//! versions read. What the text means is compared with the model, so a model that the format cannot
//! express is an error.

use super::config_hf::ACTIVATIONS;
use super::families::{self, AttentionBias, Family, ScoreScale, WindowRope, Windows};
use super::rope_hf::longrope_attention_factor;
use crate::error::{Context, Result};
use crate::model::config::ModelConfig;
use crate::model::rope_config::{RopeConfig, RopeScaling};
use crate::small_file;
use serde_json::{Value, json};

impl ModelConfig {
    /// The `config.json` of this model: the original text, or one made from the fields.
    ///
    /// Fails if Hugging Face's format cannot express the model.
    pub fn to_hf_json(&self) -> Result<String> {
        if let Some(text) = &self.hf_json {
            return Ok(text.clone());
        }
        let model_type = self.architecture.model_type();
        let text = serde_json::to_string_pretty(&made(self)?)? + "\n";
        let read = ModelConfig::from_hf_json(&text)
            .with_context(|| format!("a {model_type} model with these settings has no config.json"))?;
        if let Some(what) = difference(&read, self) {
            crate::bail!("Hugging Face's config.json cannot express {what} of this {model_type} model");
        }
        Ok(text)
    }
}

/// A `config.json` with the positions and the RoPE scaling of a model, and everything else as it was.
/// `None` if it does not read back so.
pub(super) fn rescaled(config: &ModelConfig, text: &str) -> Option<String> {
    let text = with_scaling(config, text).ok()?;
    let (read, n) = (ModelConfig::from_hf_json(&text).ok()?, config.n_layers());
    let is_same = (read.max_positions, read.n_layers()) == (config.max_positions, n)
        && (0..n).all(|layer| rotates_alike(&read, config, layer));
    is_same.then_some(text)
}

fn with_scaling(config: &ModelConfig, text: &str) -> Result<String> {
    let mut value = small_file::parse_json(text)?;
    let rope = written_rope(config)?;
    value["max_position_embeddings"] = json!(written_positions(config, &rope));
    let scaling = scaling(&rope, config.max_positions);
    let Some(own) = value.get_mut("rope_parameters").filter(|own| own.as_object().is_some_and(|own| !own.is_empty()))
    else {
        value["rope_scaling"] = scaling;
        return Ok(serde_json::to_string_pretty(&value)? + "\n");
    };
    // transformers 5: the set of full layers, in which theta and the part that rotates stay.
    let full = "full_attention";
    let set = if own.get(full).is_some() { &mut own[full] } else { own };
    let mut parameters = scaling.as_object().cloned().unwrap_or_default();
    parameters.entry("rope_type").or_insert(json!("default"));
    for key in ["rope_theta", "partial_rotary_factor"] {
        if let Some(kept) = set.get(key) {
            parameters.insert(key.into(), kept.clone());
        }
    }
    *set = Value::Object(parameters);
    if value.get("rope_scaling").is_some() {
        value["rope_scaling"] = Value::Null; // readers would prefer it
    }
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}

/// The keys of the family with their values.
fn made(config: &ModelConfig) -> Result<Value> {
    let family = families::of(config.architecture);
    let rope = written_rope(config)?;
    let mut value = json!({
        "architectures": [family.class],
        "bos_token_id": config.bos,
        "dtype": "float32",
        "eos_token_id": match config.eos.as_slice() { [] => json!(null), [one] => json!(one), many => json!(many) },
        "head_dim": config.head_dim,
        "hidden_size": config.hidden,
        "intermediate_size": config.inner,
        "max_position_embeddings": written_positions(config, &rope),
        "model_type": config.architecture.model_type(),
        "num_attention_heads": config.n_heads,
        "num_hidden_layers": config.n_layers(),
        "num_key_value_heads": config.n_kv_heads,
        "rms_norm_eps": config.rms_eps,
        "tie_word_embeddings": config.tied,
        "torch_dtype": "float32",
        "vocab_size": config.vocab,
    });
    let (key, _) = family.activation;
    value[key] = json!(ACTIVATIONS.iter().find(|(_, known)| *known == config.activation).map(|(name, _)| name));
    if family.attention_bias == AttentionBias::Key {
        value["attention_bias"] = json!(config.o_bias);
    }
    if family.mlp_bias {
        value["mlp_bias"] = json!(config.mlp_bias);
    }
    let scale = config.layers.first().map_or(1.0, |layer| layer.scale);
    match family.score_scale {
        ScoreScale::HeadDim => {}
        ScoreScale::InverseRoot(key, _) => value[key] = number(1.0 / (scale * scale)),
        ScoreScale::Value(key, _) => value[key] = number(scale),
    }
    if family.multipliers {
        value["embedding_multiplier"] = number(config.embed_scale);
        value["residual_multiplier"] = number(config.residual_scale);
        value["logits_scaling"] = number(1.0 / config.logit_scale);
    }
    if family.softcaps_logits {
        value["final_logit_softcapping"] = json!(config.logit_softcap);
    }
    write_layers(family, config, &mut value);
    write_rope(family, config, &rope, &mut value);
    Ok(value)
}

/// `max_position_embeddings`, which is the original length with dynamic RoPE.
fn written_positions(config: &ModelConfig, rope: &RopeConfig) -> usize {
    match rope.scaling {
        RopeScaling::Dynamic { original_max_positions, .. } => original_max_positions,
        _ => config.max_positions,
    }
}

/// Windows, and layers that do not rotate.
fn write_layers(family: &Family, config: &ModelConfig, value: &mut Value) {
    let windows: Vec<Option<usize>> = (0..config.n_layers()).map(|layer| config.window(layer)).collect();
    let window = windows.iter().flatten().next().copied();
    let types = || {
        let name = |window: &Option<usize>| if window.is_some() { "sliding_attention" } else { "full_attention" };
        windows.iter().map(name).collect::<Vec<_>>()
    };
    if family.windows != Windows::Never {
        value["sliding_window"] = json!(window);
    }
    match family.windows {
        Windows::Never | Windows::EveryLayer => {}
        Windows::Pattern { .. } => value["layer_types"] = json!(types()),
        Windows::UpperLayers | Windows::UnrotatedLayers => {
            value["layer_types"] = json!(types());
            value["use_sliding_window"] = json!(window.is_some());
        }
    }
    if family.unrotated_layers {
        let rotates = config.layers.iter().map(|layer| u8::from(layer.rope.is_some()));
        value["no_rope_layers"] = json!(rotates.collect::<Vec<_>>());
    }
}

/// The RoPE of full layers, with Llama 3's scaling in place of GGUF's divisors.
fn written_rope(config: &ModelConfig) -> Result<RopeConfig> {
    let Some(rope) = config.ropes.first() else { crate::bail!("the model has no RoPE settings") };
    Ok(RopeConfig { scaling: rope.llama3_from_factors()?, ..rope.clone() })
}

fn write_rope(family: &Family, config: &ModelConfig, rope: &RopeConfig, value: &mut Value) {
    if family.partial_rotary {
        value["partial_rotary_factor"] = json!(rope.rotary_dim as f64 / config.head_dim as f64);
    }
    if let WindowRope::OwnTheta(key, default) = family.window_rope {
        let of_windows = config.layers.iter().filter(|layer| layer.window.is_some()).filter_map(|layer| layer.rope);
        value[key] = json!(of_windows.map(|i| config.ropes[i].theta).next().unwrap_or(default));
    }
    if let RopeScaling::LongRope { original_max_positions, .. } = rope.scaling {
        value["original_max_position_embeddings"] = json!(original_max_positions);
    }
    let mut scaling = scaling(rope, config.max_positions);
    if let (true, Value::Object(parameters)) = (family.query_scale, &mut scaling) {
        // This family is read by transformers 5 alone.
        parameters.insert("rope_theta".into(), json!(rope.theta));
        if let Some(growth) = rope.query_scale {
            parameters.insert("llama_4_scaling_beta".into(), json!(growth.beta));
        }
        value["rope_parameters"] = scaling;
    } else {
        value["rope_theta"] = json!(rope.theta);
        value["rope_scaling"] = scaling;
    }
}

/// The value of `rope_scaling`.
fn scaling(rope: &RopeConfig, max_positions: usize) -> Value {
    match &rope.scaling {
        RopeScaling::None | RopeScaling::Factors(_) => Value::Null,
        RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
        RopeScaling::Dynamic { factor, .. } => json!({"rope_type": "dynamic", "factor": factor}),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_max_positions,
        }),
        RopeScaling::Yarn { factor, original_max_positions, beta_fast, beta_slow, truncate, attention_factor } => {
            json!({
                "rope_type": "yarn",
                "factor": factor,
                "original_max_position_embeddings": original_max_positions,
                "beta_fast": beta_fast,
                "beta_slow": beta_slow,
                "truncate": truncate,
                "attention_factor": attention_factor,
            })
        }
        RopeScaling::LongRope { short, long, original_max_positions, attention_factor } => {
            // transformers 4 takes no further key for a Phi-3 model.
            let mut value = json!({"type": "longrope", "short_factor": short, "long_factor": long});
            let ratio = max_positions as f64 / *original_max_positions as f64;
            if !alike(longrope_attention_factor(ratio, *original_max_positions), *attention_factor) {
                value["attention_factor"] = json!(attention_factor);
            }
            value
        }
    }
}

/// A number whose last digits may be the rounding of an f32, as the decimal that was meant.
fn number(value: f64) -> Value {
    let narrow = value as f32;
    let near = narrow.round();
    if alike(f64::from(near), value) { json!(near) } else { json!(narrow.to_string().parse().unwrap_or(value)) }
}

fn alike(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 * b.abs()
}

/// What differs between two configurations, apart from the rounding of numbers.
fn difference(a: &ModelConfig, b: &ModelConfig) -> Option<&'static str> {
    let biases = |c: &ModelConfig| (c.qkv_bias, c.o_bias, c.mlp_bias);
    let sizes = |c: &ModelConfig| [c.hidden, c.inner, c.n_heads, c.n_kv_heads, c.head_dim, c.vocab, c.max_positions];
    let layer_alike =
        |i: usize| a.window(i) == b.window(i) && alike(a.layers[i].scale, b.layers[i].scale) && rotates_alike(a, b, i);
    let scales = |c: &ModelConfig| [c.embed_scale, c.residual_scale, c.logit_scale, c.logit_softcap.unwrap_or(0.0)];
    let same = [
        ("the sizes", sizes(a) == sizes(b) && a.n_layers() == b.n_layers() && alike(a.rms_eps, b.rms_eps)),
        ("the biases", biases(a) == biases(b)),
        ("the norms", a.norms == b.norms && a.qk_norm == b.qk_norm),
        ("the projections", a.fused == b.fused && a.activation == b.activation && a.tied == b.tied),
        ("the factors", scales(a).iter().zip(scales(b)).all(|(a, b)| alike(*a, b))),
        ("the token ids", (a.bos, &a.eos) == (b.bos, &b.eos)),
        ("the layers", a.n_layers() == b.n_layers() && (0..a.n_layers()).all(layer_alike)),
    ];
    same.iter().find(|(_, same)| !same).map(|(what, _)| *what)
}

/// Whether two models rotate a layer alike; GGUF's divisors count as Llama 3's scaling.
fn rotates_alike(a: &ModelConfig, b: &ModelConfig, layer: usize) -> bool {
    let rope = |config: &ModelConfig| {
        let rope = config.layers[layer].rope.map(|index| &config.ropes[index])?;
        let scaling = rope.llama3_from_factors().unwrap_or_else(|_| rope.scaling.clone());
        Some(RopeConfig { scaling, ..rope.clone() })
    };
    let (mut a, b) = (rope(a), rope(b));
    if let (
        Some(RopeScaling::LongRope { attention_factor: a, .. }),
        Some(RopeScaling::LongRope { attention_factor: b, .. }),
    ) = (a.as_mut().map(|rope| &mut rope.scaling), b.as_ref().map(|rope| &rope.scaling))
        && alike(*a, *b)
    {
        *a = *b; // one of them may be computed
    }
    a == b
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::testing::small;
    use crate::model::config::{BlockNorms, LayerConfig};

    /// A small model of a family, as its tables say.
    fn of_family(family: &Family) -> ModelConfig {
        let mut config = small();
        config.architecture = family.architecture;
        (config.norms, config.qk_norm, config.fused) = (family.norms, family.qk_norm, family.fused);
        config.activation = family.activation.1;
        config.qkv_bias = family.attention_bias == AttentionBias::Qkv;
        if family.scales_embedding {
            config.embed_scale = families::embed_scale(config.hidden, crate::formats::dtype::DType::F32);
        }
        if family.multipliers {
            (config.embed_scale, config.residual_scale, config.logit_scale) = (12.0, f64::from(0.22f32), 0.125);
        }
        if family.score_scale != ScoreScale::HeadDim {
            config.layers.iter_mut().for_each(|layer| layer.scale = f64::from(0.17f32));
        }
        if family.windows != Windows::Never {
            config.layers[0].window = Some(16);
        }
        if family.windows == Windows::EveryLayer {
            config.layers[1].window = Some(16);
        }
        if family.window_rope != WindowRope::Same {
            config.ropes.push(RopeConfig::plain(1e4, config.head_dim));
            config.layers[0].rope = Some(1);
            config.ropes[0].scaling = RopeScaling::Linear { factor: 8.0 };
        }
        if family.unrotated_layers {
            config.layers[1].rope = None;
        }
        config
    }

    fn reads_back(config: &ModelConfig) {
        let text = config.to_hf_json().unwrap();
        let read = ModelConfig::from_hf_json(&text).unwrap();
        assert_eq!(read.to_hf_json().unwrap(), text);
        assert_eq!(difference(&read, config), None);
    }

    #[test]
    fn a_made_config_of_every_family_reads_back_the_same() {
        for family in families::ALL.iter().filter(|family| !family.query_scale) {
            reads_back(&of_family(family));
        }
    }

    #[test]
    fn every_scaling_reads_back_the_same() {
        let yarn = RopeScaling::Yarn {
            factor: 4.0,
            original_max_positions: 16,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate: false,
            attention_factor: 1.25,
        };
        let llama3 = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_positions: 64,
        };
        for scaling in [RopeScaling::None, RopeScaling::Linear { factor: 2.0 }, llama3, yarn] {
            let mut config = small();
            config.ropes[0].scaling = scaling;
            reads_back(&config);
        }
    }

    #[test]
    fn what_the_family_does_not_have_is_refused() {
        for (change, word) in [
            ((|c| c.qkv_bias = true) as fn(&mut ModelConfig), "biases"),
            (|c| c.layers[1].window = Some(5), "layers"),
            (|c| c.layers[0].rope = None, "layers"),
            (|c| c.layers[0].scale = 0.25, "layers"),
            (|c| c.norms = BlockNorms::After, "norms"),
            (|c| c.embed_scale = 2.0, "factors"),
            (|c| c.layers = vec![LayerConfig { window: Some(3), ..LayerConfig::full(4) }; 2], "layers"),
        ] {
            let mut config = small();
            change(&mut config);
            let e = config.to_hf_json().unwrap_err().to_string();
            assert!(e.contains(word) && e.contains("llama"), "{word}: {e}");
        }
    }
}
