//! RoPE settings of a model: base, scaling, the rotating part of a head, and the growth of queries.

use crate::error::Result;

/// Upper limit of positions, far above any model. A larger number means a damaged file.
pub(super) const MAX_POSITIONS: usize = 1 << 30;

/// Scaling of the RoPE frequencies, as `rope_scaling` or `rope_parameters` give it. All frequencies
/// and factors are those of transformers' `modeling_rope_utils.py`.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    None,
    /// Divides every frequency by `factor`.
    Linear {
        factor: f64,
    },
    /// Llama 3.x: divides low frequencies by `factor`, keeps high ones, and blends those in
    /// between.
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_max_positions: usize,
    },
    /// One divisor per frequency (`rotary_dim / 2`). GGUF files store the scaling of Llama 3 this
    /// way, in `rope_freqs.weight`.
    Factors(Vec<f32>),
    /// YaRN (arXiv 2309.00071): divides frequencies that turn less than `beta_slow` times within
    /// the original length by `factor`, keeps those that turn more than `beta_fast` times, and
    /// blends those in between.
    Yarn {
        factor: f64,
        original_max_positions: usize,
        beta_fast: f64,
        beta_slow: f64,
        /// Whether the blend begins and ends at whole frequencies.
        truncate: bool,
        /// Multiplies cosines and sines.
        attention_factor: f64,
    },
    /// LongRoPE (arXiv 2402.13753): one divisor per frequency (`rotary_dim / 2`). All positions of
    /// a text take the `short` ones up to the original length, and the `long` ones beyond.
    LongRope {
        short: Vec<f32>,
        long: Vec<f32>,
        original_max_positions: usize,
        /// Multiplies cosines and sines at every length.
        attention_factor: f64,
    },
    /// Dynamic NTK: beyond the original length, theta grows with the length of the text.
    Dynamic {
        factor: f64,
        original_max_positions: usize,
    },
}

/// Growth of the queries with their position: after the rotation, the query at position t is
/// multiplied by 1 + β · ln(1 + floor(t / L)). Keys are not (Ministral 3).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueryScale {
    /// β (`llama_4_scaling_beta`).
    pub beta: f64,
    /// L (`original_max_position_embeddings`).
    pub original_max_positions: usize,
}

/// Rotary position embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    pub theta: f64,
    pub scaling: RopeScaling,
    /// The first channels of a head, which rotate: head_dim · `partial_rotary_factor`. The others
    /// pass unchanged.
    pub rotary_dim: usize,
    pub query_scale: Option<QueryScale>,
}

impl RopeConfig {
    /// The number of positions at which the model is meant to run: YaRN's factor counts even where
    /// `max_position_embeddings` is still the original length, and dynamic RoPE always starts from
    /// it.
    pub fn promised_positions(&self, positions: usize) -> usize {
        let stretched = |factor: f64, original: usize| positions.max((factor * original as f64) as usize);
        match self.scaling {
            RopeScaling::Yarn { factor, original_max_positions, .. } => stretched(factor, original_max_positions),
            RopeScaling::Dynamic { factor, original_max_positions } => stretched(factor, original_max_positions),
            _ => positions,
        }
    }

    /// A rotation of all channels of a head, without scaling.
    pub fn plain(theta: f64, head_dim: usize) -> Self {
        Self { theta, scaling: RopeScaling::None, rotary_dim: head_dim, query_scale: None }
    }
}

impl RopeConfig {
    /// What the frequencies depend on in a text of `length` tokens: two lengths with the same value
    /// have the same frequencies.
    pub(crate) fn frequency_length(&self, length: usize) -> usize {
        match self.scaling {
            RopeScaling::LongRope { original_max_positions: original, .. } => {
                if length > original {
                    original + 1
                } else {
                    original
                }
            }
            RopeScaling::Dynamic { original_max_positions, .. } => length.max(original_max_positions),
            _ => 0,
        }
    }

    /// Whether many lengths of texts have the frequencies of `length` tokens. Beyond the original
    /// length, those of dynamic RoPE change with every token. LongRoPE has two sets in all.
    pub(crate) fn shares_frequencies(&self, length: usize) -> bool {
        match self.scaling {
            RopeScaling::Dynamic { original_max_positions, .. } => length <= original_max_positions,
            _ => true,
        }
    }

    /// Whether the frequencies depend on the length of the text.
    pub(crate) fn depends_on_length(&self) -> bool {
        matches!(self.scaling, RopeScaling::LongRope { .. } | RopeScaling::Dynamic { .. })
    }

    /// The length beyond which all tokens of a text take other frequencies, so that a cache is
    /// filled again.
    pub(crate) fn switch_length(&self) -> Option<usize> {
        match self.scaling {
            RopeScaling::LongRope { original_max_positions, .. } => Some(original_max_positions),
            _ => None,
        }
    }

    /// Fails if the settings define no valid RoPE for heads of `head_dim` channels.
    pub(super) fn validate(&self, head_dim: usize) -> Result<()> {
        positive("rope_theta", self.theta)?;
        crate::ensure!(
            self.rotary_dim.is_multiple_of(2) && (2..=head_dim).contains(&self.rotary_dim),
            "partial_rotary_factor: expected an even number of rotating channels from 2 to {head_dim}, found {}",
            self.rotary_dim
        );
        match &self.scaling {
            RopeScaling::None => {}
            RopeScaling::Linear { factor } => positive("RoPE scaling factor", *factor)?,
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => {
                positive("RoPE scaling factor", *factor)?;
                positive("RoPE low_freq_factor", *low_freq_factor)?;
                positive("RoPE high_freq_factor", *high_freq_factor)?;
                let ordered = low_freq_factor < high_freq_factor;
                crate::ensure!(
                    ordered,
                    "RoPE scaling: low_freq_factor ({low_freq_factor}) must be below high_freq_factor ({high_freq_factor})"
                );
                original_length(*original_max_positions)?;
            }
            RopeScaling::Factors(factors) => self.divisors("rope_freqs.weight", factors)?,
            RopeScaling::Yarn {
                factor,
                original_max_positions,
                beta_fast,
                beta_slow,
                truncate: _,
                attention_factor,
            } => {
                positive("RoPE scaling factor", *factor)?;
                positive("RoPE beta_fast", *beta_fast)?;
                positive("RoPE beta_slow", *beta_slow)?;
                positive("RoPE attention_factor", *attention_factor)?;
                original_length(*original_max_positions)?;
                crate::ensure!(self.theta != 1.0, "rope_theta: YaRN expects another number than 1");
            }
            RopeScaling::LongRope { short, long, original_max_positions, attention_factor } => {
                self.divisors("RoPE short_factor", short)?;
                self.divisors("RoPE long_factor", long)?;
                positive("RoPE attention_factor", *attention_factor)?;
                original_length(*original_max_positions)?;
            }
            RopeScaling::Dynamic { factor, original_max_positions } => {
                let at_least_1 = factor.is_finite() && *factor >= 1.0;
                crate::ensure!(at_least_1, "RoPE scaling factor: expected at least 1, found {factor}");
                positive("RoPE scaling factor", *factor)?;
                original_length(*original_max_positions)?;
                crate::ensure!(
                    self.rotary_dim > 2,
                    "RoPE type 'dynamic' needs more than one rotating pair of channels"
                );
            }
        }
        if let Some(QueryScale { beta, original_max_positions }) = self.query_scale {
            positive("llama_4_scaling_beta", beta)?;
            original_length(original_max_positions)?;
            crate::ensure!(
                self.rotary_dim == head_dim,
                "llama_4_scaling_beta: expected all {head_dim} channels of a head to rotate, found {}",
                self.rotary_dim
            );
        }
        Ok(())
    }

    /// Fails unless there is a positive divisor for each rotating pair of channels.
    fn divisors(&self, name: &str, divisors: &[f32]) -> Result<()> {
        let (expected, found) = (self.rotary_dim / 2, divisors.len());
        crate::ensure!(found == expected, "{name}: expected {expected} divisors, found {found}");
        divisors.iter().try_for_each(|&divisor| positive(name, f64::from(divisor)))
    }
}

fn original_length(found: usize) -> Result<()> {
    in_range("RoPE original_max_position_embeddings", found, MAX_POSITIONS)
}

pub(super) fn in_range(name: &str, found: usize, most: usize) -> Result<()> {
    crate::ensure!((1..=most).contains(&found), "{name}: expected 1 to {most}, found {found}");
    Ok(())
}

pub(super) fn positive(name: &str, found: f64) -> Result<()> {
    crate::ensure!(found.is_finite() && found > 0.0, "{name}: expected a positive number, found {found}");
    Ok(())
}
