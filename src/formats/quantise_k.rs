//! Quantises values to ggml's K blocks: 256 elements whose scales are quantised too.
//!
//! Q4_K and Q5_K have eight runs of 32 elements, x = d·s·q - m·t with 6-bit s and t; Q6_K has
//! sixteen runs of 16, x = d·s·q with 8-bit s.

use half::f16;

use super::quantise_blocks::{reciprocal, signed_scale};

/// A run of a Q4_K or Q5_K block: x is near scale·q - offset, with an offset of at least 0.
#[derive(Clone, Copy)]
struct Line {
    scale: f32,
    offset: f32,
}

/// The line with the least Σ w (x - scale·q + offset)² over q from 0 to `most`, w being large where
/// values are large. Tries several spreads of the numbers over the values, each with its best line.
fn line(x: &[f32], most: i32) -> Line {
    let mean_square = x.iter().map(|v| v * v).sum::<f32>() / x.len() as f32;
    let floor = mean_square.sqrt();
    let weight = |v: f32| floor + v.abs();
    let low = x.iter().copied().fold(0.0f32, f32::min); // an offset is never below 0
    let high = x.iter().copied().fold(f32::MIN, f32::max).max(low);
    let span = high - low;
    if span < f32::MIN_POSITIVE {
        return Line { scale: 0.0, offset: -low };
    }
    let most = most as f32;
    let mut best = (f32::MAX, Line { scale: span / most, offset: -low });
    for step in -8..=16 {
        let inverse = (most + 0.1 * step as f32) / span;
        let number = |v: f32| ((v - low) * inverse).round().clamp(0.0, most);
        let fitted = fit(x, weight, number);
        for line in [fitted, Line { scale: 1.0 / inverse, offset: -low }] {
            let again = reciprocal(line.scale);
            let error = |v: &f32| {
                let q = ((v + line.offset) * again).round().clamp(0.0, most);
                let e = v - (line.scale * q - line.offset);
                weight(*v) * e * e
            };
            let sum = x.iter().map(error).sum();
            if sum < best.0 {
                best = (sum, line);
            }
        }
    }
    best.1
}

/// The weighted least-squares line through (q, x), with an offset of at least 0.
fn fit(x: &[f32], weight: impl Fn(f32) -> f32, number: impl Fn(f32) -> f32) -> Line {
    let (mut n, mut sq, mut sx, mut sqq, mut sqx) = (0.0f32, 0.0f32, 0.0f32, 0.0f32, 0.0f32);
    for &v in x {
        let (w, q) = (weight(v), number(v));
        n += w;
        sq += w * q;
        sx += w * v;
        sqq += w * q * q;
        sqx += w * q * v;
    }
    let determinant = n * sqq - sq * sq;
    if determinant > 0.0 {
        let (scale, offset) = ((n * sqx - sq * sx) / determinant, -(sqq * sx - sq * sqx) / determinant);
        if offset >= 0.0 && scale > 0.0 {
            return Line { scale, offset };
        }
    }
    Line { scale: if sqq > 0.0 { (sqx / sqq).max(0.0) } else { 0.0 }, offset: 0.0 }
}

/// The numbers of a block of lines, and the block's first 16 bytes: d and m in f16, and s and t in
/// 12 bytes.
fn numbers_of_lines(x: &[f32], most: i32, out: &mut [u8]) -> [u8; 256] {
    let mut lines = [Line { scale: 0.0, offset: 0.0 }; 8];
    for (run, of) in x.chunks_exact(32).zip(&mut lines) {
        *of = line(run, most);
    }
    let largest = |value: fn(&Line) -> f32| lines.iter().map(value).fold(0.0f32, f32::max);
    let (d, m) = (f16::from_f32(largest(|l| l.scale) / 63.0), f16::from_f32(largest(|l| l.offset) / 63.0));
    out[..2].copy_from_slice(&d.to_le_bytes());
    out[2..4].copy_from_slice(&m.to_le_bytes());
    let (d, m) = (d.to_f32(), m.to_f32());
    let six_bits = |value: f32, unit: f32| (value * reciprocal(unit)).round().clamp(0.0, 63.0) as u8;
    let packed = &mut out[4..16];
    packed.fill(0);
    let mut q = [0; 256];
    for (j, (of, run)) in lines.iter().zip(x.chunks_exact(32)).enumerate() {
        let (s, t) = (six_bits(of.scale, d), six_bits(of.offset, m));
        if j < 4 {
            packed[j] |= s;
            packed[j + 4] |= t;
        } else {
            packed[j + 4] = s & 15 | (t & 15) << 4;
            packed[j - 4] |= s >> 4 << 6;
            packed[j] |= t >> 4 << 6;
        }
        let (scale, offset) = (d * f32::from(s), m * f32::from(t));
        let inverse = reciprocal(scale);
        for (q, v) in q[32 * j..].iter_mut().zip(run) {
            *q = ((v + offset) * inverse).round().clamp(0.0, most as f32) as u8;
        }
    }
    q
}

/// d, m, 12 bytes of scales, 128 bytes of nibbles: two runs in 32 bytes.
pub(super) fn q4_k(x: &[f32], out: &mut [u8]) {
    let q = numbers_of_lines(x, 15, out);
    for (pair, bytes) in q.chunks_exact(64).zip(out[16..].chunks_exact_mut(32)) {
        for i in 0..32 {
            bytes[i] = pair[i] | pair[i + 32] << 4;
        }
    }
}

/// As Q4_K, with the fifth bits of all elements in 32 bytes before the nibbles: bit j of byte i is
/// that of element i of run j.
pub(super) fn q5_k(x: &[f32], out: &mut [u8]) {
    let q = numbers_of_lines(x, 31, out);
    let (high, nibbles) = out[16..].split_at_mut(32);
    high.fill(0);
    for (e, q) in q.iter().enumerate() {
        high[e % 32] |= (q >> 4) << (e / 32);
    }
    for (pair, bytes) in q.chunks_exact(64).zip(nibbles.chunks_exact_mut(32)) {
        for i in 0..32 {
            bytes[i] = pair[i] & 15 | (pair[i + 32] & 15) << 4;
        }
    }
}

/// 128 bytes of nibbles, 64 of bit pairs, 16 signed scales, d in f16.
pub(super) fn q6_k(x: &[f32], out: &mut [u8]) {
    let mut scales = [0.0f32; 16];
    for (run, scale) in x.chunks_exact(16).zip(&mut scales) {
        *scale = signed_scale(run, 32);
    }
    let extreme = scales.iter().copied().fold(0.0f32, |m, s| if s.abs() > m.abs() { s } else { m });
    let d = f16::from_f32(extreme / -128.0);
    let unit = d.to_f32();
    out.fill(0);
    out[208..210].copy_from_slice(&d.to_le_bytes());
    for (j, run) in x.chunks_exact(16).enumerate() {
        let s = (scales[j] * reciprocal(unit)).round().clamp(-128.0, 127.0);
        out[192 + j] = s as i8 as u8;
        let inverse = reciprocal(unit * s);
        for (i, v) in run.iter().enumerate() {
            let q = ((v * inverse).round().clamp(-32.0, 31.0) + 32.0) as u8;
            let e = 16 * j + i;
            let (half, part, l) = (e / 128, e % 128 / 32, e % 32);
            out[half * 64 + part % 2 * 32 + l] |= (q & 15) << (part / 2 * 4);
            out[128 + half * 32 + l] |= (q >> 4) << (part * 2);
        }
    }
}
