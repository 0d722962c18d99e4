//! Quantises values to ggml's blocks of 32 elements with one scale, and searches scales.

use half::f16;

/// The scale that maps the largest magnitude to 127, rounded to f16.
pub(super) fn q8_0(x: &[f32], out: &mut [u8]) {
    let largest = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let d = f16::from_f32(largest / 127.0);
    out[..2].copy_from_slice(&d.to_le_bytes());
    let inverse = reciprocal(d.to_f32());
    for (q, v) in out[2..].iter_mut().zip(x) {
        *q = (v * inverse).round().clamp(-127.0, 127.0) as i8 as u8;
    }
}

/// Signed five-bit numbers from -16 to 15 with the best scale of [`signed_scale`].
pub(super) fn q5_0(x: &[f32], out: &mut [u8]) {
    let d = f16::from_f32(signed_scale(x, 16));
    out[..2].copy_from_slice(&d.to_le_bytes());
    let inverse = reciprocal(d.to_f32());
    let q = |v: f32| ((v * inverse).round().clamp(-16.0, 15.0) + 16.0) as u32;
    let mut high = 0;
    for i in 0..16 {
        let (low, up) = (q(x[i]), q(x[i + 16]));
        out[6 + i] = (low & 15 | (up & 15) << 4) as u8;
        high |= low >> 4 << i | up >> 4 << (i + 16);
    }
    out[2..6].copy_from_slice(&high.to_le_bytes());
}

/// 1/d, and 0 for a d of 0: a block of zeros.
pub(super) fn reciprocal(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// The scale d for which Σ x² (x - d·q)² is least, over whole numbers q from -n to n - 1. Tries the
/// scales that map the value of largest magnitude to numbers near -n, each with its best d for the
/// numbers it gives.
pub(super) fn signed_scale(x: &[f32], n: i32) -> f32 {
    let extreme = x.iter().copied().fold(0.0f32, |m, v| if v.abs() > m.abs() { v } else { m });
    if extreme.abs() < f32::MIN_POSITIVE {
        return 0.0;
    }
    let n = n as f32;
    let (mut best, mut most) = (extreme / -n, 0.0);
    for step in -9..=9 {
        let inverse = (-n + 0.1 * step as f32) / extreme;
        let (mut cross, mut square) = (0.0, 0.0);
        for &v in x {
            let (weight, q) = (v * v, (v * inverse).round().clamp(-n, n - 1.0));
            cross += weight * v * q;
            square += weight * q * q;
        }
        // With d = cross / square the error is Σ w x² - cross² / square.
        if square > 0.0 && cross * cross > most * square {
            (best, most) = (cross / square, cross * cross / square);
        }
    }
    best
}
