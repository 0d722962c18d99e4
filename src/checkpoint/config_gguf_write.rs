//! Metadata of a GGUF file from a [`ModelConfig`], as llama.cpp's converter writes it.
//!
//! [`config_gguf`](super::config_gguf) and `rope_gguf.rs` read the keys back. A setting for which the
//! format has no key is an error.

use super::config_gguf::{usual_rotation, usual_scale, usual_windows};
use super::families::{self, ScoreScale, Windows};
use crate::error::Result;
use crate::formats::gguf::{Metadata, Value};
use crate::formats::host_tensor::HostTensor;
use crate::model::config::ModelConfig;
use crate::model::rope::inv_freq;
use crate::model::rope_config::{RopeConfig, RopeScaling};

/// What a GGUF file says of a model beside its weights.
pub struct Description {
    pub metadata: Metadata,
    /// Divisors of RoPE frequencies.
    pub tensors: Vec<(String, HostTensor)>,
}

impl ModelConfig {
    /// The keys of this model with the architecture's name in front, and the tensors of its
    /// rotation. Fails if GGUF has no keys for the model.
    pub fn to_gguf(&self) -> Result<Description> {
        let name = families::of(self.architecture).gguf[0];
        let Some(rope) = self.ropes.first() else { crate::bail!("the model has no RoPE settings") };
        let (rotation, tensors) = rotation(rope)?;
        let mut metadata = Metadata::default();
        for (key, value) in sizes(self).into_iter().chain(rotation).chain(switches(self)) {
            metadata.insert(format!("{name}.{key}"), value);
        }
        metadata.insert("general.architecture", Value::String(name.into()));
        Ok(Description { metadata, tensors })
    }
}

/// What llama.cpp computes otherwise than this model does, though the file says it.
pub fn ignored_by_llama_cpp(config: &ModelConfig) -> Vec<&'static str> {
    let family = families::of(config.architecture);
    let mut ignored = vec![];
    let has_windows = (0..config.n_layers()).any(|layer| config.window(layer).is_some());
    if has_windows && !matches!(family.windows, Windows::Pattern { .. }) {
        ignored.push("the sliding windows: longer texts differ");
    }
    let usual = usual_scale(family, config.n_layers(), config.head_dim, config.hidden / config.n_heads);
    let is_usual = config.layers.iter().all(|layer| (layer.scale - usual).abs() <= 1e-6 * usual);
    if matches!(family.score_scale, ScoreScale::InverseRoot(..)) && !is_usual {
        ignored.push("the scale of attention scores");
    }
    if switches(config).iter().any(|(key, _)| *key == "attention.rope_pattern") {
        ignored.push("which layers have no RoPE");
    }
    ignored
}

type Pair = (&'static str, Value);
type NamedTensor = (String, HostTensor);

fn sizes(config: &ModelConfig) -> Vec<Pair> {
    let size = |(key, n): (&'static str, usize)| (key, Value::U64(n as u64));
    let sizes = [
        ("embedding_length", config.hidden),
        ("feed_forward_length", config.inner),
        ("block_count", config.n_layers()),
        ("context_length", config.max_positions),
        ("vocab_size", config.vocab),
        ("attention.head_count", config.n_heads),
        ("attention.head_count_kv", config.n_kv_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
    ];
    let mut pairs: Vec<Pair> = sizes.into_iter().map(size).collect();
    pairs.push(("attention.layer_norm_rms_epsilon", Value::F64(config.rms_eps)));
    pairs
}

/// Windows, scales and layers without rotation.
fn switches(config: &ModelConfig) -> Vec<Pair> {
    let family = families::of(config.architecture);
    let mut pairs = vec![];
    let windows: Vec<Option<usize>> = (0..config.n_layers()).map(|layer| config.window(layer)).collect();
    if let Some(window) = windows.iter().find_map(|window| *window) {
        pairs.push(("attention.sliding_window", Value::U64(window as u64)));
        let slides: Vec<bool> = windows.iter().map(Option::is_some).collect();
        // llama.cpp knows the usual pattern of these families, and some of its versions refuse the key.
        let is_usual = match family.windows {
            Windows::EveryLayer => slides.iter().all(|slides| *slides),
            Windows::Pattern { every, .. } => slides == usual_windows(slides.len(), every),
            _ => false,
        };
        if !is_usual {
            let slides = slides.into_iter().map(Value::Bool).collect();
            pairs.push(("attention.sliding_window_pattern", Value::Array(slides)));
        }
    }
    if let Some(rope) = config.ropes.get(1) {
        pairs.push(("rope.freq_base_swa", Value::F64(rope.theta)));
    }
    if family.score_scale != ScoreScale::HeadDim
        && let Some(layer) = config.layers.first()
    {
        pairs.push(("attention.scale", Value::F64(layer.scale)));
    }
    if family.multipliers {
        pairs.push(("embedding_scale", Value::F64(config.embed_scale)));
        pairs.push(("residual_scale", Value::F64(config.residual_scale)));
        pairs.push(("logit_scale", Value::F64(1.0 / config.logit_scale)));
    }
    if let Some(softcap) = config.logit_softcap {
        pairs.push(("final_logit_softcapping", Value::F64(softcap)));
    }
    let rotates: Vec<bool> = config.layers.iter().map(|layer| layer.rope.is_some()).collect();
    if family.unrotated_layers && rotates != usual_rotation(rotates.len()) {
        pairs.push(("attention.rope_pattern", Value::Array(rotates.into_iter().map(Value::Bool).collect())));
    }
    pairs
}

/// The key of a YaRN attention factor, if it is not llama.cpp's own, g(1) with g(m) = 0.1 m
/// ln(factor) + 1. llama.cpp divides g(1) by g of a log multiplier, and multiplies the result by
/// `attn_factor`; it takes no `yarn_attn_factor` from a file.
fn yarn_factor(factor: f64, attention_factor: f64) -> Option<Pair> {
    let log = if factor > 1.0 { 0.1 * factor.ln() } else { 0.0 };
    let ratio = (log + 1.0) / attention_factor;
    if (ratio - 1.0).abs() < 1e-12 {
        return None;
    }
    let multiplier = (ratio - 1.0) / log;
    let whole = multiplier.round();
    if whole >= 1.0 && (multiplier - whole).abs() < 1e-9 {
        return Some(("rope.scaling.yarn_log_multiplier", Value::F64(whole)));
    }
    Some(("rope.scaling.attn_factor", Value::F64(1.0 / ratio)))
}

/// Keys of the rotation of full layers, and tensors of divisors.
fn rotation(rope: &RopeConfig) -> Result<(Vec<Pair>, Vec<NamedTensor>)> {
    let mut pairs =
        vec![("rope.freq_base", Value::F64(rope.theta)), ("rope.dimension_count", Value::U64(rope.rotary_dim as u64))];
    let mut original = rope.query_scale.map(|scale| scale.original_max_positions);
    let mut tensors = vec![];
    let mut divisors = |name: &str, values: &[f32]| {
        tensors.push((name.to_string(), HostTensor::from_f32(&[values.len()], values)));
    };
    let mut scaling = |kind: &str, pairs_of_kind: Vec<Pair>| {
        pairs.push(("rope.scaling.type", Value::String(kind.into())));
        pairs.extend(pairs_of_kind);
    };
    match &rope.scaling {
        RopeScaling::None => {}
        RopeScaling::Linear { factor } => scaling("linear", vec![("rope.scaling.factor", Value::F64(*factor))]),
        RopeScaling::Factors(values) => divisors("rope_freqs.weight", values),
        RopeScaling::Llama3 { .. } => {
            let plain = inv_freq(&RopeConfig { scaling: RopeScaling::None, ..rope.clone() }, 0);
            let values: Vec<f32> = plain.iter().zip(inv_freq(rope, 0)).map(|(plain, scaled)| plain / scaled).collect();
            divisors("rope_freqs.weight", &values);
        }
        RopeScaling::Yarn { factor, original_max_positions, beta_fast, beta_slow, truncate, attention_factor } => {
            crate::ensure!(*truncate, "GGUF has no key for YaRN with truncate false");
            let mut keys = vec![
                ("rope.scaling.factor", Value::F64(*factor)),
                ("rope.scaling.yarn_beta_fast", Value::F64(*beta_fast)),
                ("rope.scaling.yarn_beta_slow", Value::F64(*beta_slow)),
            ];
            keys.extend(yarn_factor(*factor, *attention_factor));
            scaling("yarn", keys);
            original = Some(*original_max_positions);
        }
        RopeScaling::LongRope { short, long, original_max_positions, attention_factor } => {
            divisors("rope_factors_short.weight", short);
            divisors("rope_factors_long.weight", long);
            pairs.push(("rope.scaling.attn_factor", Value::F64(*attention_factor)));
            original = Some(*original_max_positions);
        }
        RopeScaling::Dynamic { .. } => {
            crate::bail!("GGUF has no keys for dynamic RoPE: export the model to `to` hf instead")
        }
    }
    if let Some(scale) = rope.query_scale {
        pairs.push(("attention.temperature_scale", Value::F64(scale.beta)));
    }
    if let Some(n) = original {
        pairs.push(("rope.scaling.original_context_length", Value::U64(n as u64)));
    }
    Ok((pairs, tensors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::testing::small;

    #[test]
    fn llama3_becomes_its_divisors() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_positions: 64,
        };
        let rope = RopeConfig { scaling, ..RopeConfig::plain(1e4, 64) };
        let (_, tensors) = rotation(&rope).unwrap();
        let [(name, divisors)] = &tensors[..] else { panic!("one tensor of divisors") };
        assert_eq!(name, "rope_freqs.weight");
        let written = RopeConfig { scaling: RopeScaling::Factors(divisors.to_f32().unwrap()), ..rope.clone() };
        for (a, b) in inv_freq(&written, 0).iter().zip(inv_freq(&rope, 0)) {
            assert!((a - b).abs() <= 1e-6 * b, "{a} and {b}");
        }
    }

    #[test]
    fn yarn_has_the_keys_that_llama_cpp_reads() {
        let g = 0.1 * 16f64.ln() + 1.0;
        assert_eq!(yarn_factor(16.0, g), None);
        assert_eq!(yarn_factor(16.0, 1.0), Some(("rope.scaling.yarn_log_multiplier", Value::F64(1.0))));
        let Some(("rope.scaling.attn_factor", Value::F64(own))) = yarn_factor(16.0, 2.0 * g) else {
            panic!("a factor")
        };
        assert!((own - 2.0).abs() < 1e-12, "{own}");
        assert_eq!(yarn_factor(1.0, 1.0), None);
        let Some((_, Value::F64(own))) = yarn_factor(1.0, 1.5) else { panic!("a factor") };
        assert!((own - 1.5).abs() < 1e-12, "{own}");
    }

    #[test]
    fn what_gguf_cannot_say_is_refused() {
        let mut config = small();
        config.ropes[0].scaling = RopeScaling::Dynamic { factor: 2.0, original_max_positions: 16 };
        assert!(config.to_gguf().err().unwrap().to_string().contains("dynamic"));
    }
}
