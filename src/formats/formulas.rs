//! Formulas of packed weights: the elements of a run from the words of a block.
//!
//! Fields and order of operations are those of ggml (ggml-common.h). All scales are f16, except
//! those of MXFP4. Each formula loops over fixed ranges and calls only inlined functions, so that the compiler
//! vectorises it.

/// Elements per run: the unit of unpacking.
pub const RUN: usize = 32;

/// Converts an IEEE half float without branches; suits vectorised loops.
#[inline(always)]
pub fn half(bits: u32) -> f32 {
    let (exponent, mantissa) = (bits & 0x7c00, bits & 0x3ff);
    let normal = f32::from_bits(((bits & 0x7fff) << 13) + (112 << 23));
    let subnormal = mantissa as i32 as f32 * f32::from_bits(103 << 23); // 2^-24
    let special = f32::from_bits(0x7f80_0000 | mantissa << 13);
    let magnitude = if exponent == 0 { subnormal } else { normal };
    let magnitude = if exponent == 0x7c00 { special } else { magnitude };
    f32::from_bits(magnitude.to_bits() | (bits & 0x8000) << 16)
}

/// Same as `half` in fewer steps, but slow for subnormal numbers. For the scales of short blocks,
/// which are rarely subnormal.
#[inline(always)]
pub fn scale(bits: u32) -> f32 {
    let magnitude = bits & 0x7fff;
    let value = f32::from_bits(magnitude << 13) * f32::from_bits(239 << 23); // 2^112
    let bits = value.to_bits() | (bits & 0x8000) << 16;
    f32::from_bits(if magnitude < 0x7c00 { bits } else { bits | 0x7f80_0000 })
}

/// The 16 bytes of four words.
#[inline(always)]
fn bytes(words: &[u32], at: usize) -> [u8; 16] {
    bytemuck::cast([words[at].to_le(), words[at + 1].to_le(), words[at + 2].to_le(), words[at + 3].to_le()])
}

/// 16 words of two bfloat16.
#[inline(always)]
pub fn bf16(block: &[u32; 16]) -> [f32; RUN] {
    let mut out = [0.0; RUN];
    for i in 0..16 {
        out[2 * i] = f32::from_bits(block[i] << 16);
        out[2 * i + 1] = f32::from_bits(block[i] & 0xffff_0000);
    }
    out
}

/// 16 words of two half floats.
#[inline(always)]
pub fn f16(block: &[u32; 16]) -> [f32; RUN] {
    let mut out = [0.0; RUN];
    for i in 0..16 {
        out[2 * i] = half(block[i] & 0xffff);
        out[2 * i + 1] = half(block[i] >> 16);
    }
    out
}

/// d f16; 32 × i8 q: y = q·d.
#[inline(always)]
pub fn q8_0(block: &[u32; 9], _: usize) -> [f32; RUN] {
    let (d, q) = (scale(block[0] & 0xffff), [bytes(block, 1), bytes(block, 5)]);
    let mut out = [0.0; RUN];
    for i in 0..16 {
        out[i] = q[0][i] as i8 as f32 * d;
        out[i + 16] = q[1][i] as i8 as f32 * d;
    }
    out
}

/// d f16; 16 bytes of two nibbles q (low: elements 0-15, high: 16-31): y = (q-8)·d.
#[inline(always)]
pub fn q4_0(block: &[u32; 5], _: usize) -> [f32; RUN] {
    let (d, q) = (scale(block[0] & 0xffff), bytes(block, 1));
    let mut out = [0.0; RUN];
    for i in 0..16 {
        out[i] = ((q[i] & 15) as f32 - 8.0) * d;
        out[i + 16] = ((q[i] >> 4) as f32 - 8.0) * d;
    }
    out
}

/// d f16, m f16; nibbles q as in Q4_0: y = q·d + m.
#[inline(always)]
pub fn q4_1(block: &[u32; 5], _: usize) -> [f32; RUN] {
    let (d, m, q) = (scale(block[0] & 0xffff), scale(block[0] >> 16), bytes(block, 1));
    let mut out = [0.0; RUN];
    for i in 0..16 {
        out[i] = (q[i] & 15) as f32 * d + m;
        out[i + 16] = (q[i] >> 4) as f32 * d + m;
    }
    out
}

/// Sixteen 5-bit numbers: the nibble of byte i at bit `shift`, with bit `from + i` of `high` as bit
/// 4.
#[inline(always)]
fn five_bits(nibbles: &[u8; 16], shift: u32, high: u32, from: u32) -> [f32; 16] {
    let mut out = [0.0; 16];
    for i in 0..16 {
        out[i] = ((nibbles[i] as u32 >> shift & 15) | (high >> (from + i as u32) & 1) << 4) as f32;
    }
    out
}

/// d f16; one word of fifth bits (bit i for element i); nibbles as in Q4_0: y = (q-16)·d with 5-bit
/// q.
#[inline(always)]
pub fn q5_0(block: &[u32; 6], _: usize) -> [f32; RUN] {
    let (d, high, nibbles) = (scale(block[0] & 0xffff), block[1], bytes(block, 2));
    let q = [five_bits(&nibbles, 0, high, 0), five_bits(&nibbles, 4, high, 16)];
    let mut out = [0.0; RUN];
    for i in 0..16 {
        out[i] = (q[0][i] - 16.0) * d;
        out[i + 16] = (q[1][i] - 16.0) * d;
    }
    out
}

/// d f16, m f16; fifth bits and nibbles as in Q5_0: y = q·d + m.
#[inline(always)]
pub fn q5_1(block: &[u32; 6], _: usize) -> [f32; RUN] {
    let (d, m, high, nibbles) = (scale(block[0] & 0xffff), scale(block[0] >> 16), block[1], bytes(block, 2));
    let q = [five_bits(&nibbles, 0, high, 0), five_bits(&nibbles, 4, high, 16)];
    let mut out = [0.0; RUN];
    for i in 0..16 {
        out[i] = q[0][i] * d + m;
        out[i + 16] = q[1][i] * d + m;
    }
    out
}

/// Pair `j` of the eight 6-bit pairs (scale, min) in words 1 to 3 of a block. Bytes 0-3 hold the
/// first four scales in their low six bits, bytes 4-7 the first four minima. The last four pairs
/// have their low nibbles in bytes 8-11 and their top two bits in the top bits of bytes 0-7.
#[inline(always)]
fn six_bit_pair(block: &[u32], j: usize) -> (u32, u32) {
    let byte = |at: usize| block[1 + at / 4] >> (8 * (at % 4)) & 0xff;
    if j < 4 {
        return (byte(j) & 63, byte(j + 4) & 63);
    }
    let low = byte(j + 4);
    ((low & 15) | (byte(j - 4) >> 6 << 4), (low >> 4) | (byte(j) >> 6 << 4))
}

/// d f16, dmin f16; 12 bytes of eight 6-bit pairs (scale, min); 128 bytes of nibbles q.
/// Run j: y = (d·scale_j)·q - dmin·min_j.
/// Even runs are low nibbles; odd runs are the high nibbles of the same bytes.
#[inline(always)]
pub fn q4k(block: &[u32; 36], run: usize) -> [f32; RUN] {
    let (d, dmin) = (half(block[0] & 0xffff), half(block[0] >> 16));
    let (factor, min) = six_bit_pair(block, run);
    let (factor, min) = (d * factor as f32, dmin * min as f32);
    let (at, shift) = (4 + run / 2 * 8, 4 * (run % 2) as u32);
    let q = [bytes(block, at), bytes(block, at + 4)];
    let value = |q: u8| factor * (q as u32 >> shift & 15) as f32 - min;
    let mut out = [0.0; RUN];
    for i in 0..16 {
        out[i] = value(q[0][i]);
        out[i + 16] = value(q[1][i]);
    }
    out
}

/// d f16, dmin f16; pairs as in Q4_K; 32 bytes of fifth bits (bit j of each for run j); 128 bytes
/// of nibbles as in Q4_K.
/// Run j: y = (d·scale_j)·q - dmin·min_j with 5-bit q.
#[inline(always)]
pub fn q5k(block: &[u32; 44], run: usize) -> [f32; RUN] {
    let (d, dmin) = (half(block[0] & 0xffff), half(block[0] >> 16));
    let (factor, min) = six_bit_pair(block, run);
    let (factor, min) = (d * factor as f32, dmin * min as f32);
    let (at, shift) = (12 + run / 2 * 8, 4 * (run % 2) as u32);
    let mut out = [0.0; RUN];
    for h in 0..2 {
        let (low, high) = (bytes(block, at + 4 * h), bytes(block, 4 + 4 * h));
        for i in 0..16 {
            let q = (low[i] as u32 >> shift & 15) | (high[i] as u32 >> run & 1) << 4;
            out[16 * h + i] = factor * q as f32 - min;
        }
    }
    out
}

/// 128 bytes of low nibbles; 64 bytes of high bit pairs; 16 × i8 scale; d f16:
/// y = (d·scale)·(q-32).
/// Each half of 128 elements has four runs. Run r takes nibble r/2 of byte (r%2)·32+l and bit pair
/// r of byte l. Every 16 elements share a scale.
#[inline(always)]
pub fn q6k(block: &[u32; 53], run: usize) -> [f32; RUN] {
    let d = half(block[52] & 0xffff);
    let (part, run) = (run / 4, run % 4);
    let (low, high) = (part * 16 + run % 2 * 8, 32 + part * 8);
    let (low_shift, high_shift) = ((run / 2 * 4) as u32, (run * 2) as u32);
    let of_16 = |i: usize| {
        let at = part * 8 + run * 2 + i;
        d * (block[48 + at / 4] >> (8 * (at % 4))) as i8 as f32
    };
    let mut out = [0.0; RUN];
    for h in 0..2 {
        let (low, high, scale) = (bytes(block, low + 4 * h), bytes(block, high + 4 * h), of_16(h));
        for i in 0..16 {
            let q = (low[i] as u32 >> low_shift & 15) | ((high[i] as u32 >> high_shift & 3) << 4);
            out[16 * h + i] = scale * (q as f32 - 32.0);
        }
    }
    out
}

/// 16 bytes of two nibbles (scale: low, min: high); 64 bytes of bit pairs q; d f16, dmin f16.
/// Each half of 128 elements has four runs of 32: run r takes bit pair r of the half's 32 bytes.
/// Every 16 elements share a scale and a min: y = (d·scale)·q - dmin·min.
#[inline(always)]
pub fn q2k(block: &[u32; 21], run: usize) -> [f32; RUN] {
    let (d, dmin) = (half(block[20] & 0xffff), half(block[20] >> 16));
    let (at, shift) = (4 + run / 4 * 8, 2 * (run % 4) as u32);
    let mut out = [0.0; RUN];
    for h in 0..2 {
        let pair = block[run / 2] >> (8 * (run % 2 * 2 + h)) & 0xff;
        let (factor, min) = (d * (pair & 15) as f32, dmin * (pair >> 4) as f32);
        let q = bytes(block, at + 4 * h);
        for i in 0..16 {
            out[16 * h + i] = factor * (q[i] as u32 >> shift & 3) as f32 - min;
        }
    }
    out
}

/// 32 bytes of third bits (bit j of each for run j); 64 bytes of bit pairs as in Q2_K; 16 6-bit
/// scales in 12 bytes; d f16. Every 16 elements share a scale: y = (d·(scale-32))·(q-4) with 3-bit
/// q.
/// Scale s has its low bits in a nibble of byte s%8 (low for s < 8) and its high bits in bit pair
/// s/4 of byte 8+s%4.
#[inline(always)]
pub fn q3k(block: &[u32; 28], run: usize) -> [f32; RUN] {
    let d = half(block[27] & 0xffff);
    let (at, shift) = (8 + run / 4 * 8, 2 * (run % 4) as u32);
    let mut out = [0.0; RUN];
    for h in 0..2 {
        let s = 2 * run + h;
        let low = block[24 + s / 4 % 2] >> (8 * (s % 4) + s / 8 * 4) & 15;
        let high = block[26] >> (8 * (s % 4) + s / 4 * 2) & 3;
        let factor = d * ((low | high << 4) as f32 - 32.0);
        let (q, third) = (bytes(block, at + 4 * h), bytes(block, 4 * h));
        for i in 0..16 {
            let q = (q[i] as u32 >> shift & 3) | (third[i] as u32 >> run & 1) << 2;
            out[16 * h + i] = factor * (q as f32 - 4.0);
        }
    }
    out
}

/// The levels of IQ4_NL.
const LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// d f16; nibbles as in Q4_0, each the number of a level: y = level·d.
#[inline(always)]
pub fn iq4nl(block: &[u32; 5], _: usize) -> [f32; RUN] {
    let (d, q) = (scale(block[0] & 0xffff), bytes(block, 1));
    levels(&LEVELS, &q, d)
}

/// Twice the values of FP4 (sign, two exponent bits, one mantissa bit).
const FP4: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// One byte e; nibbles as in Q4_0, each an FP4 number v: y = 2v·2^(e-128).
#[inline(always)]
pub fn mxfp4(block: &[u32; 5], _: usize) -> [f32; RUN] {
    let (e, q) = (block[0] & 0xff, bytes(block, 1));
    let power = f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (e - 1) << 23 });
    levels(&FP4, &q, power)
}

/// Sixteen bytes of two nibbles (low: elements 0-15, high: 16-31) looked up in a table, times d.
#[inline(always)]
fn levels(table: &[i8; 16], q: &[u8; 16], d: f32) -> [f32; RUN] {
    let mut out = [0.0; RUN];
    for i in 0..16 {
        out[i] = table[(q[i] & 15) as usize] as f32 * d;
        out[i + 16] = table[(q[i] >> 4) as usize] as f32 * d;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_float_is_itself() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (half(u32::from(bits)), half::f16::from_bits(bits).to_f32());
            assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(), "{bits:#x}");
            assert_eq!(scale(u32::from(bits)).to_bits(), ours.to_bits(), "{bits:#x}");
        }
    }
}
