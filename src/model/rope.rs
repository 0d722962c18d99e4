//! RoPE tables on the host, bit-identical to transformers where the last bit is well defined.
//!
//! Frequencies, angles and results are f32, each rounded once. cos and sin take the f32 angle in
//! f64. Kernels only read these tables, because sin and cos in a shader are too inaccurate at large
//! positions. Sources: transformers `modeling_rope_utils.py` and `LlamaRotaryEmbedding`.

use super::rope_config::{QueryScale, RopeConfig, RopeScaling};
use crate::error::Result;
use std::f64::consts::PI;
use std::ops::Range;

/// cos and sin, each [positions.len(), rotary_dim / 2] row-major, for the given absolute positions
/// in a text of `length` tokens.
///
/// Column i rotates the channel pair (i, i + rotary_dim / 2) of a head.
pub fn tables(rope: &RopeConfig, length: usize, positions: Range<usize>) -> (Vec<f32>, Vec<f32>) {
    let (frequencies, factor) = (inv_freq(rope, length), attention_factor(&rope.scaling));
    let capacity = positions.len() * frequencies.len();
    let (mut cos, mut sin) = (Vec::with_capacity(capacity), Vec::with_capacity(capacity));
    for position in positions {
        for &frequency in &frequencies {
            let angle = f64::from(position as f32 * frequency);
            cos.push(angle.cos() as f32 * factor);
            sin.push(angle.sin() as f32 * factor);
        }
    }
    (cos, sin)
}

/// The factor of the query at a position.
pub fn query_factor(scale: &QueryScale, position: usize) -> f32 {
    let turns = (position as f32 / scale.original_max_positions as f32).floor();
    1.0 + scale.beta as f32 * f64::from(1.0 + turns).ln() as f32
}

/// The factor of cosines and sines.
fn attention_factor(scaling: &RopeScaling) -> f32 {
    match scaling {
        RopeScaling::Yarn { attention_factor, .. } | RopeScaling::LongRope { attention_factor, .. } => {
            *attention_factor as f32
        }
        _ => 1.0,
    }
}

/// Radians per position of each channel pair, [rotary_dim / 2], in a text of `length` tokens.
pub fn inv_freq(rope: &RopeConfig, length: usize) -> Vec<f32> {
    let dim = rope.rotary_dim;
    let plain = || unscaled(rope.theta, dim);
    match &rope.scaling {
        RopeScaling::None => plain(),
        RopeScaling::Linear { factor } => plain().iter().map(|f| f / *factor as f32).collect(),
        RopeScaling::Factors(factors) => plain().iter().zip(factors).map(|(f, factor)| f / factor).collect(),
        &RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => {
            let scale = |f: &f32| llama3(*f, factor, low_freq_factor, high_freq_factor, original_max_positions as f64);
            plain().iter().map(scale).collect()
        }
        &RopeScaling::Yarn { factor, original_max_positions, beta_fast, beta_slow, truncate, .. } => {
            let blend = Blend::yarn(rope, original_max_positions as f64, [beta_fast, beta_slow], truncate);
            let divide = |(i, p): (usize, f32)| {
                let (divided, kept) = (1.0 / (factor as f32 * p), 1.0 / p);
                let keep = 1.0 - blend.at(i);
                divided * (1.0 - keep) + kept * keep
            };
            powers(rope.theta, dim).enumerate().map(divide).collect()
        }
        RopeScaling::LongRope { short, long, original_max_positions, .. } => {
            let divisors = if length > *original_max_positions { long } else { short };
            powers(rope.theta, dim).zip(divisors).map(|(p, divisor)| 1.0 / (divisor * p)).collect()
        }
        &RopeScaling::Dynamic { factor, original_max_positions } => {
            unscaled(dynamic_theta(rope, factor, original_max_positions, length), dim)
        }
    }
}

/// theta^(2i / d). Each step rounds to f32; the power is computed in f64 and rounded once.
fn powers(theta: f64, dim: usize) -> impl Iterator<Item = f32> {
    let theta = f64::from(theta as f32);
    (0..dim / 2).map(move |i| theta.powf(f64::from((2 * i) as f32 / dim as f32)) as f32)
}

/// 1 / theta^(2i / d).
fn unscaled(theta: f64, dim: usize) -> Vec<f32> {
    powers(theta, dim).map(|power| 1.0 / power).collect()
}

/// A blend of two frequencies that rises from 0 at index `low` to 1 at index `high`.
struct Blend {
    low: f32,
    range: f32,
}

impl Blend {
    /// `find_correction_range` of transformers. Frequency i turns b times within the original
    /// length at i = d ln(length / 2πb) / (2 ln theta).
    fn yarn(rope: &RopeConfig, original: f64, [fast, slow]: [f64; 2], truncate: bool) -> Self {
        let dim = rope.rotary_dim as f64;
        let index = |turns: f64| dim * (original / (turns * 2.0 * PI)).ln() / (2.0 * rope.theta.ln());
        let (mut low, mut high) = (index(fast), index(slow));
        if truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(dim - 1.0));
        if low == high {
            high += 0.001; // transformers avoids a division by 0
        }
        Self { low: low as f32, range: (high - low) as f32 }
    }

    fn at(&self, i: usize) -> f32 {
        ((i as f32 - self.low) / self.range).clamp(0.0, 1.0)
    }
}

/// theta · (factor · n/M - (factor - 1))^(d / (d - 2)) for a text of n tokens beyond the original
/// length M, in f32.
fn dynamic_theta(rope: &RopeConfig, factor: f64, original: usize, length: usize) -> f64 {
    if length <= original {
        return rope.theta;
    }
    let dim = rope.rotary_dim as f64;
    let stretch = factor as f32 * length as f32 / original as f32 - (factor - 1.0) as f32;
    let power = f64::from(stretch).powf(f64::from((dim / (dim - 2.0)) as f32)) as f32;
    f64::from(rope.theta as f32 * power)
}

/// `_compute_llama3_parameters` in f32, with its order of operations: torch divides a number by a
/// tensor as reciprocal times number.
fn llama3(inv_freq: f32, factor: f64, low: f64, high: f64, original: f64) -> f32 {
    let wavelength = (1.0 / inv_freq) * (2.0 * PI) as f32;
    let (longest, shortest) = ((original / low) as f32, (original / high) as f32);
    let scaled = if wavelength > longest { inv_freq / factor as f32 } else { inv_freq };
    if wavelength < shortest || wavelength > longest {
        return scaled;
    }
    let smooth = ((1.0 / wavelength) * original as f32 - low as f32) / (high - low) as f32;
    (1.0 - smooth) * scaled / factor as f32 + smooth * scaled
}

impl RopeConfig {
    /// The Llama 3 parameters for the divisors of a GGUF file, for file formats that store only the
    /// parameters.
    ///
    /// All published Llama 3.x models use low 1, high 4 and 8192 original positions. They differ
    /// only in the factor, which is the largest divisor. The function checks the result against
    /// every divisor.
    pub fn llama3_from_factors(&self) -> Result<RopeScaling> {
        let RopeScaling::Factors(factors) = &self.scaling else { return Ok(self.scaling.clone()) };
        let factor = factors.iter().copied().fold(1.0, f32::max);
        let guess = RopeScaling::Llama3 {
            factor: f64::from(factor),
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_positions: 8192,
        };
        let guessed = RopeConfig { scaling: guess.clone(), ..self.clone() };
        let alike = inv_freq(&guessed, 0).iter().zip(inv_freq(self, 0)).all(|(a, b)| (a - b).abs() <= 1e-4 * b);
        crate::ensure!(alike, "rope_freqs.weight is not Llama 3's RoPE scaling, the only one that can be written down");
        Ok(guess)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_frequencies_are_powers_of_theta() {
        // 10000^(-i/4): in f32, each equals its literal.
        assert_eq!(unscaled(1e4, 8), [1.0, 0.1, 0.01, 0.001]);
        // 500000^(-1/16) and 500000^(-15/16).
        let f = unscaled(5e5, 32);
        assert!((f[1] - 0.440_366_62).abs() < 1e-7 && (f[15] - 4.541_670_5e-6).abs() < 1e-12, "{} {}", f[1], f[15]);
    }

    #[test]
    fn llama3_keeps_divides_and_blends() {
        let mut rope = RopeConfig::plain(5e5, 32);
        let plain = inv_freq(&rope, 0);
        rope.scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_positions: 64,
        };
        let scaled = inv_freq(&rope, 0);
        for (&p, &s) in plain.iter().zip(&scaled) {
            let wavelength = 2.0 * PI / f64::from(p);
            let smooth = ((64.0 / wavelength - 1.0) / 3.0).clamp(0.0, 1.0);
            let expected = f64::from(p) * ((1.0 - smooth) / 8.0 + smooth);
            assert!((f64::from(s) / expected - 1.0).abs() < 1e-6, "{p} {s} {expected}");
        }
        assert_eq!((scaled[0], scaled[15]), (plain[0], plain[15] / 8.0));
        assert!(scaled.iter().zip(&plain).any(|(s, p)| s < p && *s > p / 8.0), "none was blended");
    }

    #[test]
    fn divisors_of_a_gguf_file_become_llama3_again() {
        let mut rope = RopeConfig::plain(5e5, 64);
        let plain = inv_freq(&rope, 0);
        let scaling = RopeScaling::Llama3 {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_positions: 8192,
        };
        rope.scaling = scaling.clone();
        let factors: Vec<f32> = plain.iter().zip(inv_freq(&rope, 0)).map(|(p, s)| p / s).collect();
        rope.scaling = RopeScaling::Factors(factors.clone());
        assert_eq!(rope.llama3_from_factors().unwrap(), scaling);
        rope.scaling = RopeScaling::Factors(factors.iter().map(|f| f * 1.01).collect());
        assert!(rope.llama3_from_factors().is_err());
    }

    fn scaled(theta: f64, dim: usize, scaling: RopeScaling) -> RopeConfig {
        RopeConfig { scaling, ..RopeConfig::plain(theta, dim) }
    }

    /// The formulas of YaRN in f64.
    #[test]
    fn yarn_divides_slow_frequencies_and_multiplies_the_tables() {
        let yarn = |truncate| RopeScaling::Yarn {
            factor: 4.0,
            original_max_positions: 64,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate,
            attention_factor: 1.5,
        };
        for truncate in [true, false] {
            let rope = scaled(1e4, 16, yarn(truncate));
            let index = |turns: f64| 16.0 * (64.0 / (turns * 2.0 * PI)).ln() / (2.0 * 1e4f64.ln());
            let (low, high) =
                if truncate { (index(32.0).floor(), index(1.0).ceil()) } else { (index(32.0), index(1.0)) };
            let (low, high) = (low.max(0.0), high.min(15.0));
            assert!(high > low + 1.0, "some frequencies are blended");
            let found = inv_freq(&rope, 1);
            for (i, &f) in found.iter().enumerate() {
                let plain = 1e4f64.powf(-(i as f64) / 8.0);
                let blend = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                let expected = plain * (blend / 4.0 + 1.0 - blend);
                assert!((f64::from(f) / expected - 1.0).abs() < 1e-6, "{i}: {f}, not {expected}");
            }
            assert_eq!((found[0], inv_freq(&rope, 5000)), (1.0, found.clone()), "the same at every length");
            let (cos, sin) = tables(&rope, 8, 7..8);
            assert_eq!((cos[0], sin[0]), (7f64.cos() as f32 * 1.5, 7f64.sin() as f32 * 1.5));
        }
        // The blend of equal ends is a step.
        let step = RopeScaling::Yarn {
            factor: 2.0,
            original_max_positions: 4,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate: true,
            attention_factor: 1.0,
        };
        let f = inv_freq(&scaled(1e4, 8, step), 1);
        assert_eq!((f[0], f[1]), (1.0, 0.05));
    }

    #[test]
    fn longrope_takes_one_set_of_divisors_for_a_whole_text() {
        let longrope = RopeScaling::LongRope {
            short: vec![1.0, 2.0],
            long: vec![4.0, 5.0],
            original_max_positions: 10,
            attention_factor: 1.25,
        };
        let rope = scaled(1e4, 4, longrope);
        assert_eq!((inv_freq(&rope, 10), inv_freq(&rope, 11)), (vec![1.0, 0.005], vec![0.25, 0.002]));
        let (cos, _) = tables(&rope, 11, 3..4);
        assert_eq!(cos[0], 0.75f64.cos() as f32 * 1.25);
    }

    #[test]
    fn dynamic_theta_grows_beyond_the_original_length() {
        let rope = scaled(1e4, 8, RopeScaling::Dynamic { factor: 3.0, original_max_positions: 32 });
        assert_eq!((inv_freq(&rope, 32), inv_freq(&rope, 1)), (unscaled(1e4, 8), unscaled(1e4, 8)));
        // 10000 (3 · 48/32 - 2)^(8/6)
        let theta = 1e4 * 2.5f64.powf(8.0 / 6.0);
        for (i, f) in inv_freq(&rope, 48).into_iter().enumerate() {
            assert!((f64::from(f) / theta.powf(-(i as f64) / 4.0) - 1.0).abs() < 1e-6, "{i}: {f}");
        }
    }

    #[test]
    fn queries_grow_by_whole_original_lengths() {
        let scale = QueryScale { beta: 0.5, original_max_positions: 10 };
        assert_eq!([0, 9].map(|t| query_factor(&scale, t)), [1.0; 2]);
        for (t, n) in [(10, 2.0f64), (19, 2.0), (20, 3.0)] {
            assert!((f64::from(query_factor(&scale, t)) - (1.0 + 0.5 * n.ln())).abs() < 1e-7, "{t}");
        }
    }

    #[test]
    fn tables_hold_the_positions_asked_for() {
        let rope = RopeConfig::plain(1e4, 4);
        let (cos, sin) = tables(&rope, 5, 3..5);
        assert_eq!((cos.len(), sin.len()), (4, 4));
        assert_eq!(cos[0], 3f64.cos() as f32);
        assert_eq!(sin[3], f64::from(4.0f32 * 0.01f32).sin() as f32);
    }
}
