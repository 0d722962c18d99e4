//! RoPE from a `config.json`: every scaling, in the spellings of transformers 4 and 5.
//!
//! transformers 4 has `rope_theta` and `rope_scaling`, transformers 5 has `rope_parameters` with
//! theta in it, perhaps one set for each type of layer. Formulas of defaults are those of
//! transformers' `modeling_rope_utils.py`.

use super::families::{Family, WindowRope};
use super::json_fields::{Fields, required};
use crate::error::{Context, Error, Result};
use crate::model::rope_config::{QueryScale, RopeConfig, RopeScaling};
use serde_json::Value;

/// The sizes on which RoPE depends.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub head_dim: usize,
    /// `max_position_embeddings`.
    pub positions: usize,
}

/// RoPE of full layers, and of layers with a sliding window.
pub(super) struct Ropes {
    pub full: RopeConfig,
    pub sliding: RopeConfig,
}

/// Keys that change the rotation in a way that is not supported.
const REFUSED: [&str; 5] = ["mrope_section", "mrope_interleaved", "xdrope_section", "short_mscale", "long_mscale"];

const LAYER_TYPES: [&str; 2] = ["full_attention", "sliding_attention"];

/// Reads both.
pub(super) fn ropes(family: &Family, fields: &Fields, sizes: Sizes) -> Result<Ropes> {
    let reader = Reader { family, fields, sizes };
    let scaling = settings(fields, "rope_scaling")?;
    let parameters = settings(fields, "rope_parameters")?;
    crate::ensure!(
        !family.query_scale || scaling.or(parameters).is_some(),
        "'rope_parameters' is missing; without it, the RoPE of a {} model is unknown",
        family.architecture.model_type()
    );
    let nested = parameters.filter(|p| LAYER_TYPES.iter().any(|key| p.has(key)));
    if let Some(set) = scaling.filter(|s| LAYER_TYPES.iter().any(|key| s.has(key))).or(nested)
        && (family.window_rope == WindowRope::Same || nested.is_none())
    {
        let key = LAYER_TYPES.into_iter().find(|key| set.has(key)).unwrap_or_default();
        crate::bail!(
            "RoPE parameters per layer type ('{key}') are not supported for a {} model; expected one set for all layers",
            family.architecture.model_type()
        );
    }
    let of_type = |i: usize| match nested {
        Some(nested) => settings(&nested, LAYER_TYPES[i]).context("rope_parameters"),
        None => Ok(parameters.filter(|_| i == 0)),
    };
    let (new_full, new_sliding) = (of_type(0)?, of_type(1)?);
    // transformers prefers `rope_scaling`, which people add to configurations of either version.
    let (key, set) = match scaling {
        Some(scaling) => ("rope_scaling", Some(scaling)),
        None => ("rope_parameters", new_full),
    };
    let number = |set: Option<Fields>, key: &str| set.map_or(Ok(None), |set| set.number(key));
    let theta = number(set, "rope_theta")?
        .or(fields.number("rope_theta")?)
        .or(number(new_full, "rope_theta")?)
        .unwrap_or(family.defaults.theta);
    let full = reader.rope(set, key, theta).context(key)?;
    let of_windows = |theta: f64| -> Result<RopeConfig> {
        let theta = number(new_sliding, "rope_theta")?.unwrap_or(theta);
        reader.rope(new_sliding, "rope_parameters", theta).context("rope_parameters")
    };
    let sliding = match family.window_rope {
        WindowRope::Same => full.clone(),
        WindowRope::Unscaled => of_windows(theta)?,
        WindowRope::OwnTheta(key, default) => of_windows(fields.number(key)?.unwrap_or(default))?,
    };
    Ok(Ropes { full, sliding })
}

/// The object under a key, or `None` if it is absent, null or empty.
fn settings<'a>(fields: &Fields<'a>, key: &str) -> Result<Option<Fields<'a>>> {
    match fields.get(key) {
        Some(Value::Object(map)) if map.is_empty() => Ok(None),
        Some(value) => Fields::of(value).map(Some).context(key),
        None => Ok(None),
    }
}

struct Reader<'a> {
    family: &'a Family,
    /// The whole configuration.
    fields: &'a Fields<'a>,
    sizes: Sizes,
}

impl Reader<'_> {
    /// One set, which `key` holds.
    fn rope(&self, set: Option<Fields>, key: &str, theta: f64) -> Result<RopeConfig> {
        let Sizes { head_dim, .. } = self.sizes;
        let number = |key: &str| set.map_or(Ok(None), |set| set.number(key));
        let partial = number("partial_rotary_factor")?.or(self.fields.number("partial_rotary_factor")?).unwrap_or(1.0);
        crate::ensure!(
            self.family.partial_rotary || partial == 1.0,
            "partial_rotary_factor {partial} is not supported for a {} model; expected 1",
            self.family.architecture.model_type()
        );
        crate::ensure!(
            partial > 0.0 && partial <= 1.0,
            "partial_rotary_factor: expected a number above 0 and at most 1, found {partial}"
        );
        let rotary_dim = (head_dim as f64 * partial) as usize;
        let plain = RopeConfig { theta, scaling: RopeScaling::None, rotary_dim, query_scale: None };
        let Some(set) = set else { return Ok(plain) };
        if let Some(name) = REFUSED.iter().find(|name| set.get(name).is_some()) {
            crate::bail!("'{name}' is not supported");
        }
        Ok(RopeConfig { scaling: self.scaling(&set, key, rotary_dim)?, query_scale: self.query_scale(&set)?, ..plain })
    }

    fn scaling(&self, set: &Fields, key: &str, rotary_dim: usize) -> Result<RopeScaling> {
        let positions = self.sizes.positions;
        let number = |key: &str| required(set.number(key)?, key);
        let original = |default: usize| Ok::<usize, Error>(self.own_original(set)?.unwrap_or(default));
        Ok(match self.kind(set, key)? {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: number("factor")? },
            "dynamic" => RopeScaling::Dynamic { factor: number("factor")?, original_max_positions: positions },
            "llama3" => RopeScaling::Llama3 {
                factor: number("factor")?,
                low_freq_factor: number("low_freq_factor")?,
                high_freq_factor: number("high_freq_factor")?,
                original_max_positions: required(self.own_original(set)?, "original_max_position_embeddings")?,
            },
            "yarn" => {
                let factor = number("factor")?;
                let not_zero = |key: &str| Ok::<_, Error>(set.number(key)?.filter(|&v| v != 0.0));
                RopeScaling::Yarn {
                    factor,
                    original_max_positions: original(positions)?,
                    beta_fast: not_zero("beta_fast")?.unwrap_or(32.0),
                    beta_slow: not_zero("beta_slow")?.unwrap_or(1.0),
                    truncate: set.flag("truncate")?.unwrap_or(true),
                    attention_factor: match set.number("attention_factor")? {
                        Some(given) => given,
                        None => yarn_attention_factor(factor, not_zero("mscale")?, not_zero("mscale_all_dim")?),
                    },
                }
            }
            "longrope" => self.longrope(set, key, rotary_dim)?,
            other => crate::bail!(
                "RoPE type '{other}' is not supported; expected default, linear, dynamic, llama3, yarn or longrope"
            ),
        })
    }

    /// The type, by its present name.
    fn kind<'f>(&self, set: &Fields<'f>, key: &str) -> Result<&'f str> {
        let kind = match set.text("rope_type")?.or(set.text("type")?) {
            Some(kind) => kind,
            None if key == "rope_scaling" && set.get("factor").is_some() => {
                crate::bail!("'rope_type' is missing; expected the type of scaling that the factor belongs to")
            }
            None => "default",
        };
        let is_longrope = self.family.old_longrope_names && matches!(kind, "su" | "yarn");
        Ok(if is_longrope { "longrope" } else { kind })
    }

    /// `original_max_position_embeddings` of the set, or of the whole configuration.
    fn own_original(&self, set: &Fields) -> Result<Option<usize>> {
        const KEY: &str = "original_max_position_embeddings";
        Ok(set.size(KEY)?.or(self.fields.size(KEY)?))
    }

    fn longrope(&self, set: &Fields, key: &str, rotary_dim: usize) -> Result<RopeScaling> {
        let positions = self.sizes.positions;
        let original = self.own_original(set)?.or(self.family.defaults.original_positions);
        let ratio = original.map(|original| positions as f64 / original.max(1) as f64);
        let own = set.number("factor")?;
        // transformers 4 prefers the ratio, transformers 5 the factor.
        let factor = if key == "rope_scaling" { ratio.or(own) } else { own.or(ratio) };
        let original_max_positions = original.unwrap_or(positions);
        let attention_factor = match set.number("attention_factor")? {
            Some(given) => given,
            None => longrope_attention_factor(required(factor, "factor")?, original_max_positions),
        };
        let divisors = |key: &str| -> Result<Vec<f32>> {
            let value = required(set.get(key), key)?;
            let one = |v: &Value| v.as_f64().map(|v| v as f32);
            let list: Option<Vec<f32>> = value.as_array().and_then(|list| list.iter().map(one).collect());
            let list = list.ok_or_else(|| set.wrong(key, "a list of numbers", value))?;
            let n = rotary_dim / 2;
            crate::ensure!(list.len() == n, "'{key}': expected {n} numbers, found {}", list.len());
            Ok(list)
        };
        let (short, long) = (divisors("short_factor")?, divisors("long_factor")?);
        Ok(RopeScaling::LongRope { short, long, original_max_positions, attention_factor })
    }

    fn query_scale(&self, set: &Fields) -> Result<Option<QueryScale>> {
        const KEY: &str = "llama_4_scaling_beta";
        let Some(beta) = set.number(KEY)?.filter(|&beta| beta != 0.0) else { return Ok(None) };
        crate::ensure!(
            self.family.query_scale,
            "'{KEY}' is not supported for a {} model",
            self.family.architecture.model_type()
        );
        let original_max_positions = required(self.own_original(set)?, "original_max_position_embeddings")?;
        Ok(Some(QueryScale { beta, original_max_positions }))
    }
}

/// YaRN's factor of cosines and sines: g(mscale) / g(mscale_all_dim) if both are given, else g(1),
/// with g(m) = 0.1 · m · ln factor + 1.
pub(super) fn yarn_attention_factor(factor: f64, mscale: Option<f64>, mscale_all_dim: Option<f64>) -> f64 {
    let g = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
    match (mscale, mscale_all_dim) {
        (Some(a), Some(b)) => g(a) / g(b),
        _ => g(1.0),
    }
}

/// LongRoPE's factor of cosines and sines: √(1 + ln factor / ln original).
pub(super) fn longrope_attention_factor(factor: f64, original: usize) -> f64 {
    if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / (original as f64).ln()).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::ModelConfig;
    use serde_json::json;

    fn read(model_type: &str, pairs: Value) -> Result<ModelConfig> {
        let mut value = json!({"model_type": model_type, "hidden_size": 64, "intermediate_size": 160, "head_dim": 16,
                               "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
                               "vocab_size": 320, "max_position_embeddings": 256});
        for (key, v) in pairs.as_object().unwrap() {
            value[key] = v.clone();
        }
        ModelConfig::from_hf_json(&value.to_string())
    }

    /// The first RoPE, which must be the same in the spelling of transformers 5.
    fn rope_of(model_type: &str, scaling: Value) -> RopeConfig {
        let old = read(model_type, json!({"rope_theta": 5e5, "rope_scaling": scaling})).unwrap();
        let mut parameters = scaling;
        parameters["rope_theta"] = json!(5e5);
        let new = read(model_type, json!({"rope_parameters": parameters, "rope_scaling": null})).unwrap();
        assert_eq!(old.ropes, new.ropes);
        assert_eq!((old.max_positions, old.ropes[0].theta), (new.max_positions, 5e5));
        old.ropes[0].clone()
    }

    #[test]
    fn every_scaling_is_read_in_both_spellings() {
        assert_eq!(rope_of("llama", json!({"rope_type": "default"})), RopeConfig::plain(5e5, 16));
        let linear = rope_of("llama", json!({"type": "linear", "factor": 2.0}));
        assert_eq!(linear.scaling, RopeScaling::Linear { factor: 2.0 });
        let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                            "original_max_position_embeddings": 64});
        let scaling = rope_of("llama", llama3).scaling;
        assert!(matches!(scaling, RopeScaling::Llama3 { original_max_positions: 64, .. }));
        let dynamic = rope_of("llama", json!({"rope_type": "dynamic", "factor": 2.0})).scaling;
        assert_eq!(dynamic, RopeScaling::Dynamic { factor: 2.0, original_max_positions: 256 });
    }

    #[test]
    fn yarn_has_transformers_defaults() {
        let yarn = |pairs: Value| {
            let mut scaling = json!({"rope_type": "yarn", "factor": 4.0});
            scaling.as_object_mut().unwrap().extend(pairs.as_object().unwrap().clone());
            match rope_of("qwen2", scaling).scaling {
                RopeScaling::Yarn {
                    original_max_positions, beta_fast, beta_slow, truncate, attention_factor, ..
                } => (original_max_positions, beta_fast, beta_slow, truncate, attention_factor),
                other => panic!("{other:?}"),
            }
        };
        let g = 0.1 * 4f64.ln() + 1.0;
        assert_eq!(yarn(json!({})), (256, 32.0, 1.0, true, g));
        let given = json!({"original_max_position_embeddings": 64, "beta_fast": 8, "beta_slow": 2.0, "truncate": false,
                           "attention_factor": 1.5});
        assert_eq!(yarn(given), (64, 8.0, 2.0, false, 1.5));
        assert_eq!(yarn(json!({"mscale": 1.0, "mscale_all_dim": 1.0, "beta_fast": 0})).4, 1.0);
        assert_eq!(yarn(json!({"mscale": 0.5, "mscale_all_dim": 0.0})).4, g);
        let half = (0.05 * 4f64.ln() + 1.0) / g;
        assert_eq!(yarn(json!({"mscale": 0.5, "mscale_all_dim": 1.0})).4, half);
    }

    #[test]
    fn a_model_runs_at_the_length_that_its_scaling_promises() {
        let positions = |scaling: Value| read("llama", json!({"rope_scaling": scaling})).unwrap().max_positions;
        let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256});
        assert_eq!(positions(yarn), 1024);
        assert_eq!(positions(json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32})), 256);
        assert_eq!(positions(json!({"rope_type": "dynamic", "factor": 3.0})), 768);
        assert_eq!(positions(json!({"rope_type": "linear", "factor": 4.0})), 256);
    }

    fn phi3(pairs: Value) -> Result<ModelConfig> {
        let mut all = json!({"partial_rotary_factor": 0.75, "original_max_position_embeddings": 64});
        all.as_object_mut().unwrap().extend(pairs.as_object().unwrap().clone());
        read("phi3", all)
    }

    #[test]
    fn longrope_is_read_under_all_its_names() {
        let factors = [1.0, 1.02, 1.1, 1.25, 1.4, 1.6];
        let short: Vec<f32> = factors.iter().map(|&f| f as f32).collect();
        let scaling = |kind: &str| json!({"type": kind, "short_factor": factors, "long_factor": factors});
        let expected = RopeScaling::LongRope {
            short: short.clone(),
            long: short,
            original_max_positions: 64,
            attention_factor: (1.0 + 4f64.ln() / 64f64.ln()).sqrt(),
        };
        for kind in ["su", "yarn", "longrope"] {
            let config = phi3(json!({"rope_scaling": scaling(kind)})).unwrap();
            assert_eq!((config.ropes[0].rotary_dim, &config.ropes[0].scaling), (12, &expected), "{kind}");
        }
        let mut new = scaling("longrope");
        new["partial_rotary_factor"] = json!(0.75);
        let config = phi3(json!({"rope_parameters": new, "partial_rotary_factor": null})).unwrap();
        assert_eq!((config.ropes[0].rotary_dim, &config.ropes[0].scaling), (12, &expected));
        let factor_of = |key: &str| {
            let mut scaling = scaling("longrope");
            scaling["factor"] = json!(16.0);
            match phi3(json!({ key: scaling })).unwrap().ropes[0].scaling {
                RopeScaling::LongRope { attention_factor, .. } => attention_factor,
                ref other => panic!("{other:?}"),
            }
        };
        assert_eq!(factor_of("rope_scaling"), (1.0 + 4f64.ln() / 64f64.ln()).sqrt());
        assert_eq!(factor_of("rope_parameters"), (1.0 + 16f64.ln() / 64f64.ln()).sqrt());
    }

    #[test]
    fn each_type_of_layer_may_have_its_own_set() {
        let nested = json!({"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 2e6},
                            "sliding_attention": {"rope_type": "default", "rope_theta": 2e4}});
        let gemma = read(
            "gemma3_text",
            json!({"sliding_window": 24, "sliding_window_pattern": 2,
                                               "rope_parameters": nested}),
        )
        .unwrap();
        let full = RopeConfig { scaling: RopeScaling::Linear { factor: 8.0 }, ..RopeConfig::plain(2e6, 16) };
        assert_eq!(gemma.ropes, [full, RopeConfig::plain(2e4, 16)]);
        let yarn = json!({"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64});
        let olmo = read("olmo3", json!({"sliding_window": 24, "rope_theta": 5e5, "rope_scaling": yarn})).unwrap();
        assert!(matches!(olmo.ropes[0].scaling, RopeScaling::Yarn { .. }));
        assert_eq!(olmo.ropes[1], RopeConfig::plain(5e5, 16));
    }

    #[test]
    fn queries_of_ministral_3_grow() {
        let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "mscale": 1.0,
                          "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1});
        let rope = &read("ministral3", json!({ "rope_parameters": yarn })).unwrap().ropes[0];
        assert_eq!(rope.query_scale, Some(QueryScale { beta: 0.1, original_max_positions: 32 }));
        assert!(matches!(rope.scaling, RopeScaling::Yarn { attention_factor: 1.0, .. }));
        let e = read("ministral3", json!({})).unwrap_err().to_string();
        assert!(e.contains("rope_parameters"), "{e}");
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (model_type, pairs, word) in [
            ("llama", json!({"rope_scaling": {"rope_type": "mrope"}}), "'mrope'"),
            ("llama", json!({"rope_scaling": {"factor": 4.0}}), "rope_type"),
            ("llama", json!({"rope_scaling": {"rope_type": "yarn"}}), "'factor' is missing"),
            ("llama", json!({"rope_scaling": {"type": "default", "mrope_section": [1, 2]}}), "mrope_section"),
            ("llama", json!({"rope_scaling": {"rope_type": "linear", "factor": 0.0}}), "factor"),
            ("llama", json!({"rope_scaling": 4.0}), "rope_scaling"),
            ("llama", json!({"rope_parameters": {"full_attention": {}}}), "per layer type"),
            ("llama", json!({"rope_parameters": {"partial_rotary_factor": 0.5}}), "partial_rotary_factor"),
            ("llama", json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor"),
            ("llama", json!({"rope_parameters": {"llama_4_scaling_beta": 0.1}}), "llama_4_scaling_beta"),
            ("phi3", json!({"partial_rotary_factor": 1.5}), "partial_rotary_factor"),
            ("phi3", json!({"rope_scaling": {"type": "su", "short_factor": [1.0]}}), "expected 8 numbers, found 1"),
            ("phi3", json!({"rope_scaling": {"type": "su", "short_factor": [true]}}), "a list of numbers"),
        ] {
            let e = read(model_type, pairs).expect_err(word).to_string();
            assert!(e.contains(word), "{word}: {e}");
        }
    }
}
