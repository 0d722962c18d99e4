//! Packed weights to real numbers on the CPU: what the references read 16-bit and quantised weights with.
//!
//! The values are those of [`dequant`](crate::formats::dequant) to the bit, from the words of [`Format`] instead of a file's bytes, in runs of
//! [`RUN`] elements that a compiler turns into vectors. `kernels/weights.rs` makes products of them.

use super::Format;
use crate::gpu::Real;

/// Elements that are unpacked at a time.
pub const RUN: usize = 32;

/// A packed format as its blocks of `WORDS` words.
pub trait Blocks<const WORDS: usize> {
    /// Runs in a block.
    const RUNS: usize;

    /// Run number `run` of a block.
    fn unpack<T: Real>(block: &[u32; WORDS], run: usize) -> [T; RUN];
}

/// Calls a function that is generic over the real type, the words of a block and the packed format, for the format at hand.
macro_rules! by_format {
    ($format:expr, $real:ty, $function:ident($($arg:expr),*)) => {
        match $format {
            Format::Bf16 => $function::<$real, 16, $crate::tensor::blocks::Bf16>($($arg),*),
            Format::F16 => $function::<$real, 16, $crate::tensor::blocks::F16>($($arg),*),
            Format::Q8_0 => $function::<$real, 9, $crate::tensor::blocks::Q8_0>($($arg),*),
            Format::Q4_0 => $function::<$real, 5, $crate::tensor::blocks::Q4_0>($($arg),*),
            Format::Q4_1 => $function::<$real, 5, $crate::tensor::blocks::Q4_1>($($arg),*),
            Format::Q4K => $function::<$real, 36, $crate::tensor::blocks::Q4K>($($arg),*),
            Format::Q6K => $function::<$real, 53, $crate::tensor::blocks::Q6K>($($arg),*),
            Format::F32 => unreachable!("f32 weights are not packed"),
        }
    };
}
pub(crate) use by_format;

/// An IEEE half float, without a branch: for many at a time.
#[inline(always)]
fn half(bits: u32) -> f32 {
    let (exponent, mantissa) = (bits & 0x7c00, bits & 0x3ff);
    let normal = f32::from_bits(((bits & 0x7fff) << 13) + (112 << 23));
    let subnormal = mantissa as i32 as f32 * f32::from_bits(103 << 23); // 2^-24
    let special = f32::from_bits(0x7f80_0000 | mantissa << 13);
    let magnitude = if exponent == 0 { subnormal } else { normal };
    let magnitude = if exponent == 0x7c00 { special } else { magnitude };
    f32::from_bits(magnitude.to_bits() | (bits & 0x8000) << 16)
}

/// The same in fewer steps, slow only where the number is subnormal: for scales of short blocks, which rarely are.
#[inline(always)]
fn scale(bits: u32) -> f32 {
    let magnitude = bits & 0x7fff;
    let value = f32::from_bits(magnitude << 13) * f32::from_bits(239 << 23); // 2^112
    let bits = value.to_bits() | (bits & 0x8000) << 16;
    f32::from_bits(if magnitude < 0x7c00 { bits } else { bits | 0x7f80_0000 })
}

/// The bytes of four words.
#[inline(always)]
fn bytes(words: &[u32], at: usize) -> [u8; 16] {
    bytemuck::cast([words[at].to_le(), words[at + 1].to_le(), words[at + 2].to_le(), words[at + 3].to_le()])
}

/// 16 pairs of halves.
pub struct Bf16;

impl Blocks<16> for Bf16 {
    const RUNS: usize = 1;

    #[inline(always)]
    fn unpack<T: Real>(block: &[u32; 16], _: usize) -> [T; RUN] {
        let mut out = [T::ZERO; RUN];
        for i in 0..16 {
            out[2 * i] = T::of(f32::from_bits(block[i] << 16));
            out[2 * i + 1] = T::of(f32::from_bits(block[i] & 0xffff_0000));
        }
        out
    }
}

/// 16 pairs of halves.
pub struct F16;

impl Blocks<16> for F16 {
    const RUNS: usize = 1;

    #[inline(always)]
    fn unpack<T: Real>(block: &[u32; 16], _: usize) -> [T; RUN] {
        let mut out = [T::ZERO; RUN];
        for i in 0..16 {
            out[2 * i] = T::of(half(block[i] & 0xffff));
            out[2 * i + 1] = T::of(half(block[i] >> 16));
        }
        out
    }
}

/// y = q·d.
pub struct Q8_0;

impl Blocks<9> for Q8_0 {
    const RUNS: usize = 1;

    #[inline(always)]
    fn unpack<T: Real>(block: &[u32; 9], _: usize) -> [T; RUN] {
        let (d, q) = (scale(block[0] & 0xffff), [bytes(block, 1), bytes(block, 5)]);
        let mut out = [T::ZERO; RUN];
        for i in 0..16 {
            out[i] = T::of(q[0][i] as i8 as f32 * d);
            out[i + 16] = T::of(q[1][i] as i8 as f32 * d);
        }
        out
    }
}

/// y = (q-8)·d.
pub struct Q4_0;

impl Blocks<5> for Q4_0 {
    const RUNS: usize = 1;

    #[inline(always)]
    fn unpack<T: Real>(block: &[u32; 5], _: usize) -> [T; RUN] {
        let (d, q) = (scale(block[0] & 0xffff), bytes(block, 1));
        let mut out = [T::ZERO; RUN];
        for i in 0..16 {
            out[i] = T::of(((q[i] & 15) as f32 - 8.0) * d);
            out[i + 16] = T::of(((q[i] >> 4) as f32 - 8.0) * d);
        }
        out
    }
}

/// y = q·d + m.
pub struct Q4_1;

impl Blocks<5> for Q4_1 {
    const RUNS: usize = 1;

    #[inline(always)]
    fn unpack<T: Real>(block: &[u32; 5], _: usize) -> [T; RUN] {
        let (d, m, q) = (scale(block[0] & 0xffff), scale(block[0] >> 16), bytes(block, 1));
        let mut out = [T::ZERO; RUN];
        for i in 0..16 {
            out[i] = T::of((q[i] & 15) as f32 * d + m);
            out[i + 16] = T::of((q[i] >> 4) as f32 * d + m);
        }
        out
    }
}

/// y = (d·scale)·q - dmin·min.
pub struct Q4K;

impl Blocks<36> for Q4K {
    const RUNS: usize = 8;

    #[inline(always)]
    fn unpack<T: Real>(block: &[u32; 36], run: usize) -> [T; RUN] {
        let (d, dmin) = (half(block[0] & 0xffff), half(block[0] >> 16));
        let byte = |at: usize| block[1 + at / 4] >> (8 * (at % 4)) & 0xff;
        let (factor, min) = if run < 4 {
            (byte(run) & 63, byte(run + 4) & 63)
        } else {
            let low = byte(run + 4);
            ((low & 15) | (byte(run - 4) >> 6 << 4), (low >> 4) | (byte(run) >> 6 << 4))
        };
        let (factor, min) = (d * factor as f32, dmin * min as f32);
        let (at, shift) = (4 + run / 2 * 8, 4 * (run % 2) as u32);
        let q = [bytes(block, at), bytes(block, at + 4)];
        let value = |q: u8| T::of(factor * (q as u32 >> shift & 15) as f32 - min);
        let mut out = [T::ZERO; RUN];
        for i in 0..16 {
            out[i] = value(q[0][i]);
            out[i + 16] = value(q[1][i]);
        }
        out
    }
}

/// y = (d·scale)·(q-32).
pub struct Q6K;

impl Blocks<53> for Q6K {
    const RUNS: usize = 8;

    #[inline(always)]
    fn unpack<T: Real>(block: &[u32; 53], run: usize) -> [T; RUN] {
        let d = half(block[52] & 0xffff);
        let (part, run) = (run / 4, run % 4);
        let (low, high) = (part * 16 + run % 2 * 8, 32 + part * 8);
        let (low_shift, high_shift) = ((run / 2 * 4) as u32, (run * 2) as u32);
        let of_16 = |i: usize| {
            let at = part * 8 + run * 2 + i;
            d * (block[48 + at / 4] >> (8 * (at % 4))) as i8 as f32
        };
        let mut out = [T::ZERO; RUN];
        for h in 0..2 {
            let (low, high, scale) = (bytes(block, low + 4 * h), bytes(block, high + 4 * h), of_16(h));
            for i in 0..16 {
                let q = (low[i] as u32 >> low_shift & 15) | ((high[i] as u32 >> high_shift & 3) << 4);
                out[16 * h + i] = T::of(scale * (q as f32 - 32.0));
            }
        }
        out
    }
}

/// The elements `from..` of a packed tensor, wherever they lie: for what is not worth a vector.
pub fn unpack_from<T: Real>(format: Format, words: &[u32], from: usize, out: &mut [T]) {
    fn copy<T: Real, const WORDS: usize, B: Blocks<WORDS>>(words: &[u32], from: usize, out: &mut [T]) {
        let mut block = [0; WORDS];
        let mut held = None;
        let mut run = [T::ZERO; RUN];
        for (i, out) in (from..).zip(out) {
            if held != Some(i / RUN) {
                let part = &words[i / RUN / B::RUNS * WORDS..];
                let n = part.len().min(WORDS); // 16-bit formats may end within a run
                block[..n].copy_from_slice(&part[..n]);
                run = B::unpack(&block, i / RUN % B::RUNS);
                held = Some(i / RUN);
            }
            *out = run[i % RUN];
        }
    }
    by_format!(format, T, copy(words, from, out));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::dequant;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn packed_blocks_hold_the_values_of_the_file_to_the_bit() {
        let mut rng = StdRng::seed_from_u64(7);
        for format in Format::QUANTISED {
            let stored: Vec<u8> = (0..format.dtype().block_bytes() * 64).map(|_| rng.random_range(0..=255)).collect();
            let words = format.words_of_blocks(&stored).unwrap();
            let expected = dequant::to_f32(format.dtype(), &stored).unwrap();
            let mut values = vec![0.0f32; expected.len()];
            unpack_from(format, &words, 0, &mut values);
            let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
            assert!(values.iter().zip(&expected).all(same), "{format:?}");
            let mut some = vec![0.0f64; 70];
            unpack_from(format, &words, 45, &mut some);
            assert!(some.iter().zip(&expected[45..]).all(|(a, b)| *a == f64::from(*b) || b.is_nan()), "{format:?}");
        }
    }

    #[test]
    fn every_half_float_is_itself() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (half(u32::from(bits)), half::f16::from_bits(bits).to_f32());
            assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(), "{bits:#x}");
            assert_eq!(scale(u32::from(bits)).to_bits(), ours.to_bits(), "{bits:#x}");
        }
    }

    #[test]
    fn ragged_blocks_are_refused() {
        assert!(Format::Q4_1.words_of_blocks(&[0; 21]).is_err());
        assert!(Format::F16.words_of_blocks(&[0; 4]).is_err());
    }
}
