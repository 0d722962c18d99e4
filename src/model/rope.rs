//! RoPE tables on the host, bit-identical to transformers where the last bit is well defined.
//!
//! Frequencies, angles and results are f32, each rounded once. cos and sin take the f32 angle in
//! f64. Kernels only read these tables, because sin and cos in a shader are too inaccurate at large
//! positions. Sources: transformers `modeling_rope_utils.py` and `LlamaRotaryEmbedding`.

use super::config::{RopeConfig, RopeScaling};
use crate::error::Result;
use std::f64::consts::PI;
use std::ops::Range;

/// cos and sin, each [positions.len(), head_dim / 2] row-major, for the given absolute positions.
///
/// Column i rotates the channel pair (i, i + head_dim / 2).
pub fn tables(rope: &RopeConfig, head_dim: usize, positions: Range<usize>) -> (Vec<f32>, Vec<f32>) {
    let frequencies = inv_freq(rope, head_dim);
    let capacity = positions.len() * frequencies.len();
    let (mut cos, mut sin) = (Vec::with_capacity(capacity), Vec::with_capacity(capacity));
    for position in positions {
        for &frequency in &frequencies {
            let angle = f64::from(position as f32 * frequency);
            cos.push(angle.cos() as f32);
            sin.push(angle.sin() as f32);
        }
    }
    (cos, sin)
}

/// Radians per position of each channel pair, [head_dim / 2].
pub fn inv_freq(rope: &RopeConfig, head_dim: usize) -> Vec<f32> {
    let plain = unscaled(rope.theta, head_dim);
    match &rope.scaling {
        RopeScaling::None => plain,
        RopeScaling::Linear { factor } => plain.iter().map(|f| f / *factor as f32).collect(),
        RopeScaling::Factors(factors) => plain.iter().zip(factors).map(|(f, factor)| f / factor).collect(),
        &RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => {
            let scale = |f: &f32| llama3(*f, factor, low_freq_factor, high_freq_factor, original_max_positions as f64);
            plain.iter().map(scale).collect()
        }
    }
}

/// 1 / theta^(2i / d). Each step rounds to f32; the power is computed in f64 and rounded once.
fn unscaled(theta: f64, head_dim: usize) -> Vec<f32> {
    let theta = f64::from(theta as f32);
    let exponent = |i: usize| (2 * i) as f32 / head_dim as f32;
    (0..head_dim / 2).map(|i| 1.0 / (theta.powf(f64::from(exponent(i))) as f32)).collect()
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
    pub fn llama3_from_factors(&self, head_dim: usize) -> Result<RopeScaling> {
        let RopeScaling::Factors(factors) = &self.scaling else { return Ok(self.scaling.clone()) };
        let factor = factors.iter().copied().fold(1.0, f32::max);
        let guess = RopeScaling::Llama3 {
            factor: f64::from(factor),
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_positions: 8192,
        };
        let guessed = RopeConfig { scaling: guess.clone(), ..self.clone() };
        let alike =
            inv_freq(&guessed, head_dim).iter().zip(inv_freq(self, head_dim)).all(|(a, b)| (a - b).abs() <= 1e-4 * b);
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
        let mut rope = RopeConfig { theta: 5e5, scaling: RopeScaling::None };
        let plain = inv_freq(&rope, 32);
        rope.scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_positions: 64,
        };
        let scaled = inv_freq(&rope, 32);
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
        let mut rope = RopeConfig { theta: 5e5, scaling: RopeScaling::None };
        let plain = inv_freq(&rope, 64);
        let scaling = RopeScaling::Llama3 {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_positions: 8192,
        };
        rope.scaling = scaling.clone();
        let factors: Vec<f32> = plain.iter().zip(inv_freq(&rope, 64)).map(|(p, s)| p / s).collect();
        rope.scaling = RopeScaling::Factors(factors.clone());
        assert_eq!(rope.llama3_from_factors(64).unwrap(), scaling);
        rope.scaling = RopeScaling::Factors(factors.iter().map(|f| f * 1.01).collect());
        assert!(rope.llama3_from_factors(64).is_err());
    }

    #[test]
    fn tables_hold_the_positions_asked_for() {
        let rope = RopeConfig { theta: 1e4, scaling: RopeScaling::None };
        let (cos, sin) = tables(&rope, 4, 3..5);
        assert_eq!((cos.len(), sin.len()), (4, 4));
        assert_eq!(cos[0], 3f64.cos() as f32);
        assert_eq!(sin[3], f64::from(4.0f32 * 0.01f32).sin() as f32);
    }
}
