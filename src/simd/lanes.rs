//! Sixteen numbers at a time: the vector operations that packed weights and their products need.
//!
//! [`Lanes`] separates formulas from instruction sets. A formula is written once, generic over it.
//! [`widest!`](super::widest) compiles a function for AVX-512 (with and without VBMI), AVX2, NEON and
//! plain Rust, and calls the widest one that the CPU has. Unpacked weights have the same bits everywhere. Sums do
//! too, except in plain Rust, which rounds a product before it adds to it.

/// Lanes of a vector.
pub const LANES: usize = 16;

/// Operations on sixteen f32 and on thirty-two bytes. A value of such a type proves that the CPU
/// has the instructions.
pub trait Lanes: Copy {
    /// Sixteen f32.
    type F: Copy;
    /// Thirty-two bytes.
    type B: Copy;
    /// Sixteen levels that nibbles choose from.
    type Levels: Copy;
    /// Rows whose sums, two each, fit into registers beside an unpacked weight.
    const ROWS: usize;

    /// Asks for the cache lines of `count` elements from a number on, which are read soon. They may lie
    /// past the end.
    fn prefetch<T>(self, x: &[T], from: usize, count: usize);
    /// Sixteen numbers from memory.
    fn load(self, x: &[f32; LANES]) -> Self::F;
    /// Writes the lanes to memory.
    fn store(self, v: Self::F, out: &mut [f32; LANES]);
    /// One number in all lanes.
    fn splat(self, x: f32) -> Self::F;
    /// a · b.
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// a + b.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// a · b + c, with one rounding where the CPU has an instruction for it.
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The sum of the lanes, half added to half, four times.
    fn total(self, v: Self::F) -> f32;
    /// The totals of four vectors, with the same bits as [`Lanes::total`] gives.
    #[inline(always)]
    fn totals(self, [a, b, c, d]: [Self::F; 4]) -> [f32; 4] {
        [self.total(a), self.total(b), self.total(c), self.total(d)]
    }

    /// Sixteen IEEE half floats.
    fn halves(self, words: &[u32; 8]) -> Self::F;
    /// Sixteen bfloat16.
    fn brain(self, words: &[u32; 8]) -> Self::F;
    /// The two IEEE half floats of a word.
    fn half_pair(self, word: u32) -> [f32; 2];

    /// The IEEE half floats of sixteen words: the low ones, and the high ones.
    #[inline(always)]
    fn half_pairs(self, words: &[u32; LANES]) -> [Self::F; 2] {
        let low = std::array::from_fn(|i| words[2 * i] & 0xffff | words[2 * i + 1] << 16);
        let high = std::array::from_fn(|i| words[2 * i] >> 16 | words[2 * i + 1] & 0xffff_0000);
        [self.halves(&low), self.halves(&high)]
    }

    /// The first eight lanes of both, and the last eight lanes of both.
    fn regrouped(self, a: Self::F, b: Self::F) -> [Self::F; 2];

    /// Thirty-two bytes from memory.
    fn bytes(self, words: &[u32; 8]) -> Self::B;
    /// Writes thirty-two bytes to memory.
    fn store_bytes(self, b: Self::B, out: &mut [u32; 8]);
    /// The low nibbles of sixteen bytes, then the high ones.
    fn nibbles(self, words: &[u32; 4]) -> Self::B;
    /// The eight 6-bit scales of a K block, its eight 6-bit minima, and sixteen zeros. They lie in words
    /// 1 to 3. Their bytes 0-3 hold the first four scales in their low six bits, bytes 4-7 the first
    /// four minima. The last four of both have their low nibbles in bytes 8-11 and their top two bits
    /// in the top bits of bytes 0-7.
    #[inline(always)]
    fn six_bits(self, &[_, scales, minima, last]: &[u32; 4]) -> Self::B {
        let last_scales = last & 0x0f0f_0f0f | scales >> 2 & 0x3030_3030;
        let last_minima = last >> 4 & 0x0f0f_0f0f | minima >> 2 & 0x3030_3030;
        self.bytes(&[scales & 0x3f3f_3f3f, last_scales, minima & 0x3f3f_3f3f, last_minima, 0, 0, 0, 0])
    }
    /// (b >> shift) & mask in each byte. No bit of the mask may reach into the next byte.
    fn field(self, b: Self::B, shift: u32, mask: u8) -> Self::B;
    /// a | (b << shift) in each byte. No bit may leave its byte.
    fn or_shifted(self, a: Self::B, b: Self::B, shift: u32) -> Self::B;
    /// a - b in each byte.
    fn minus(self, a: Self::B, b: u8) -> Self::B;
    /// Byte i is 1 if bit i of the word is set, else 0.
    fn bits(self, word: u32) -> Self::B;
    /// The entry of the table for each byte; bytes are below 16.
    fn lookup(self, table: &[i8; LANES], b: Self::B) -> Self::B;
    /// The bytes as numbers from 0 to 255.
    fn unsigned(self, b: Self::B) -> [Self::F; 2];
    /// The bytes as numbers from -128 to 127.
    fn signed(self, b: Self::B) -> [Self::F; 2];

    /// The bytes, which are below 128, as numbers from which a number below 128 is subtracted.
    #[inline(always)]
    fn centred(self, b: Self::B, zero: u8) -> [Self::F; 2] {
        self.signed(self.minus(b, zero))
    }

    /// Levels of the nibbles q: q · factor + offset.
    fn levels(self, factor: f32, offset: f32) -> Self::Levels;
    /// The levels of the low nibbles of sixteen bytes.
    fn low(self, levels: Self::Levels, words: &[u32; 4]) -> Self::F;
    /// The levels of the high nibbles of sixteen bytes.
    fn high(self, levels: Self::Levels, words: &[u32; 4]) -> Self::F;
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_float_is_itself() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (half(u32::from(bits)), half::f16::from_bits(bits).to_f32());
            assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(), "{bits:#x}");
        }
    }

    fn centred<L: Lanes>(l: L, words: &[u32; 8], zero: u8) -> [[f32; LANES]; 2] {
        l.centred(l.bytes(words), zero).map(|v| {
            let mut numbers = [0.0; LANES];
            l.store(v, &mut numbers);
            numbers
        })
    }

    #[test]
    fn centred_bytes_are_the_same_numbers_everywhere() {
        for (step, zero) in [(0, 0), (1, 4), (3, 8), (5, 16), (11, 32), (17, 127)] {
            let bytes: [u8; 2 * LANES] = std::array::from_fn(|i| (i * step % 128) as u8);
            let words: [u32; 8] = bytemuck::cast(bytes);
            let expected: Vec<f32> = bytes.iter().map(|&byte| f32::from(byte) - f32::from(zero)).collect();
            let check = |numbers: [[f32; LANES]; 2]| assert_eq!(numbers.as_flattened(), expected);
            check(centred(crate::simd::Portable, &words, zero));
            #[cfg(target_arch = "x86_64")]
            {
                use crate::simd::{Avx2, Avx512, Vbmi};
                Vbmi::detect().into_iter().for_each(|l| check(centred(l, &words, zero)));
                Avx512::detect().into_iter().for_each(|l| check(centred(l, &words, zero)));
                Avx2::detect().into_iter().for_each(|l| check(centred(l, &words, zero)));
            }
            #[cfg(target_arch = "aarch64")]
            check(centred(crate::simd::Neon, &words, zero));
        }
    }
}
