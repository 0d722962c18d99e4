//! A RoPE scaling that replaces a model's own, for texts longer than the model was made for.
//!
//! The result is that of transformers for a `rope_scaling` of this type and factor in `config.json`,
//! and of llama.cpp for the same type, factor and original length. Where the layers with a sliding
//! window have a rotation of their own (Gemma 3, OLMo 3), they keep it, as in transformers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::config_hf_write::rescaled;
use super::families::{self, WindowRope};
use super::rope_hf::yarn_attention_factor;
use crate::error::{Error, Result};
use crate::model::config::{LayerConfig, ModelConfig};
use crate::model::rope_config::{RopeConfig, RopeScaling};

/// A RoPE scaling by its kind and its factor. Texts and JSON write it as `yarn:4`, `linear:2`,
/// `dynamic:2`, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RopeOverride {
    kind: Kind,
    /// Finite and above 1; 1 for [`Kind::None`].
    factor: f64,
}

// The factor is finite.
impl Eq for RopeOverride {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The frequencies of theta, up to the original length.
    None,
    Linear,
    Dynamic,
    Yarn,
}

/// The kinds that have a factor, by name.
const KINDS: [(&str, Kind); 3] = [("yarn", Kind::Yarn), ("linear", Kind::Linear), ("dynamic", Kind::Dynamic)];

impl FromStr for RopeOverride {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = |why: &str| {
            Error::usage(format!(
                "'{text}' is no RoPE scaling: {why}; give a kind and a factor, such as yarn:4, linear:2 or dynamic:2, \
                 or none"
            ))
        };
        if text == "none" {
            return Ok(Self { kind: Kind::None, factor: 1.0 });
        }
        let (name, factor) = text.split_once(':').ok_or_else(|| refused("it has no factor"))?;
        let known = KINDS.iter().find(|(known, _)| *known == name);
        let (_, kind) = known.ok_or_else(|| refused(&format!("there is no kind '{name}'")))?;
        let factor: f64 = factor.parse().map_err(|_| refused(&format!("'{factor}' is no number")))?;
        if !(factor.is_finite() && factor > 1.0) {
            return Err(refused("the positions are multiplied by the factor, so it is finite and above 1"));
        }
        Ok(Self { kind: *kind, factor })
    }
}

impl TryFrom<String> for RopeOverride {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<RopeOverride> for String {
    fn from(scaling: RopeOverride) -> Self {
        scaling.to_string()
    }
}

impl fmt::Display for RopeOverride {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match KINDS.iter().find(|(_, kind)| *kind == self.kind) {
            Some((name, _)) => write!(f, "{name}:{}", self.factor),
            None => f.write_str("none"),
        }
    }
}

impl RopeOverride {
    /// YaRN with the smallest whole factor with which a model takes `n_tokens`; `None` if no scaling
    /// may replace its own, or if it takes them already.
    pub fn advised(config: &ModelConfig, n_tokens: usize) -> Option<Self> {
        let one = Self { kind: Kind::None, factor: 1.0 };
        let original = one.original_of(config, config.ropes.first()?).ok()?;
        let factor = n_tokens.div_ceil(original.max(1)).max(2) as f64;
        let advised = Self { kind: Kind::Yarn, factor };
        advised.applied(config).ok().filter(|_| n_tokens > config.max_positions).map(|_| advised)
    }

    /// The configuration of a model with this scaling in place of its own, and with the positions that
    /// it reaches: factor · original.
    ///
    /// Fails if the model has no rotation to scale, and if its weights belong to a scaling that no other
    /// one may replace.
    pub fn applied(&self, config: &ModelConfig) -> Result<ModelConfig> {
        let of_windows_too = families::of(config.architecture).window_rope == WindowRope::Same;
        let is_scaled = |layer: &LayerConfig| of_windows_too || layer.window.is_none();
        let rotates = config.layers.iter().any(|layer| layer.rope.is_some() && is_scaled(layer));
        let Some(own) = config.ropes.first().filter(|_| rotates) else {
            return Err(self.refusal(config, "none of its layers rotates queries and keys over the whole text"));
        };
        if own.scaling == (RopeScaling::Linear { factor: self.factor }) && self.kind == Kind::Linear {
            return Ok(config.clone()); // its positions are those that it reaches
        }
        let original = self.original_of(config, own)?;
        let with = |rope: &RopeConfig| RopeConfig { scaling: self.scaling(original), ..rope.clone() };
        let mut layers = config.layers.clone();
        let mut ropes = vec![with(own)]; // those of full layers first, as readers have them
        for layer in &mut layers {
            let Some(rope) = layer.rope.map(|index| &config.ropes[index]) else { continue };
            let rope = if is_scaled(layer) { with(rope) } else { rope.clone() };
            let known = ropes.iter().position(|known| *known == rope);
            layer.rope = Some(known.unwrap_or(ropes.len()));
            if known.is_none() {
                ropes.push(rope);
            }
        }
        let max_positions = (self.factor * original as f64) as usize;
        let scaled = ModelConfig { layers, ropes, max_positions, hf_json: None, ..config.clone() };
        scaled.validate().map_err(|e| Error::usage(format!("`rope_scaling` {self}: {e}")))?;
        // A text that cannot say it is made anew where a folder is written, or refused there.
        let hf_json = config.hf_json.as_deref().and_then(|text| rescaled(&scaled, text));
        Ok(ModelConfig { hf_json, ..scaled })
    }

    /// The scaling over so many original positions, with transformers' defaults.
    fn scaling(&self, original_max_positions: usize) -> RopeScaling {
        let factor = self.factor;
        match self.kind {
            Kind::None => RopeScaling::None,
            Kind::Linear => RopeScaling::Linear { factor },
            Kind::Dynamic => RopeScaling::Dynamic { factor, original_max_positions },
            Kind::Yarn => RopeScaling::Yarn {
                factor,
                original_max_positions,
                beta_fast: 32.0,
                beta_slow: 1.0,
                truncate: true,
                attention_factor: yarn_attention_factor(factor, None, None),
            },
        }
    }

    /// The positions for which the model was made without a scaling. Fails if its weights were trained
    /// with a scaling that cannot be taken away.
    ///
    /// Llama 3's divisors are such a scaling: transformers would drop them for YaRN, llama.cpp would
    /// apply both, and the weights know neither.
    fn original_of(&self, config: &ModelConfig, own: &RopeConfig) -> Result<usize> {
        if own.query_scale.is_some() {
            return Err(self.refusal(config, "its queries grow with their position, to go with its own scaling"));
        }
        match own.scaling {
            RopeScaling::None => Ok(config.max_positions),
            RopeScaling::Yarn { original_max_positions, .. } | RopeScaling::Dynamic { original_max_positions, .. } => {
                Ok(original_max_positions)
            }
            RopeScaling::Linear { factor } => Err(self.refusal(
                config,
                &format!("its frequencies are divided by {factor} already, and its files do not say from which length"),
            )),
            RopeScaling::Llama3 { .. } | RopeScaling::Factors(_) => Err(self.refusal(
                config,
                "its weights were trained with the divisors of Llama 3's scaling, which is for long texts already",
            )),
            RopeScaling::LongRope { .. } => Err(self.refusal(
                config,
                "its weights were trained with the divisors of LongRoPE, which is for long texts already",
            )),
        }
    }

    fn refusal(&self, config: &ModelConfig, why: &str) -> Error {
        Error::usage(format!(
            "`rope_scaling` {self} cannot replace the RoPE of this {} model: {why}. Leave `rope_scaling` out: the model \
             takes {} positions",
            config.architecture.model_type(),
            config.max_positions
        ))
    }
}

#[cfg(test)]
#[path = "rope_override_tests.rs"]
mod tests;
