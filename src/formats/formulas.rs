//! Formulas of packed weights: the elements of a block from its words.
//!
//! Fields and order of operations are those of ggml (ggml-common.h). All scales are f16, except
//! those of MXFP4. Each formula is written once over [`Lanes`], and gives the same bits with all of
//! them: in every quantised format all products are exact in f32, so there is at most one rounding.

use super::blocks::{
    Bf16, Blocks, F16, F32, Iq4Nl, Mxfp4, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, Runs, part,
};
use super::codes::Codes;
use crate::simd::{LANES, Lanes};

/// x · d as an array. A formula spreads one factor at a time over all lanes.
#[inline(always)]
fn factors<L: Lanes>(l: L, x: L::F, d: f32) -> [f32; LANES] {
    let mut factors = [0.0; LANES];
    l.store(l.mul(x, l.splat(d)), &mut factors);
    factors
}

/// Sixteen bytes, the others zero.
#[inline(always)]
fn sixteen<L: Lanes>(l: L, &[a, b, c, d]: &[u32; 4]) -> L::B {
    l.bytes(&[a, b, c, d, 0, 0, 0, 0])
}

/// w · factor for sixteen elements each.
#[inline(always)]
fn scaled<L: Lanes>(l: L, w: [L::F; 2], factors: [f32; 2]) -> [L::F; 2] {
    [l.mul(w[0], l.splat(factors[0])), l.mul(w[1], l.splat(factors[1]))]
}

/// w · factor + offset for sixteen elements each.
#[inline(always)]
fn shifted<L: Lanes>(l: L, w: [L::F; 2], factors: [f32; 2], offsets: [f32; 2]) -> [L::F; 2] {
    let of = |h: usize| l.mul_add(w[h], l.splat(factors[h]), l.splat(offsets[h]));
    [of(0), of(1)]
}

/// The factors of a run's halves.
#[inline(always)]
fn halves(x: &[f32; LANES], run: usize) -> [f32; 2] {
    [x[2 * run], x[2 * run + 1]]
}

/// The two half floats at the start of each block, eight blocks at a time.
#[inline(always)]
fn first_halves<L: Lanes, const WORDS: usize>(l: L, blocks: &[[u32; WORDS]], out: &mut [[f32; 2]]) {
    let (eights, rest) = blocks.as_chunks::<8>();
    let (outs, last) = out.split_at_mut(8 * eights.len());
    for (eight, out) in eights.iter().zip(outs.as_chunks_mut::<8>().0) {
        let mut halves = [0.0; LANES];
        l.store(l.halves(&std::array::from_fn(|i| eight[i][0])), &mut halves);
        out.as_flattened_mut().copy_from_slice(&halves);
    }
    for (block, out) in rest.iter().zip(last) {
        *out = l.half_pair(block[0]);
    }
}

/// Plain f32.
impl Blocks<32, 1> for F32 {
    type Head = ();

    #[inline(always)]
    fn head<L: Lanes>(_: L, _: &[u32; 32]) {}

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, (): &(), block: &[u32; 32], runs: &mut R) {
        let vector = |at: usize| l.load(bytemuck::cast_ref(part::<LANES>(block, at)));
        runs.take(l, 0, [vector(0), vector(LANES)]);
    }
}

/// Two bfloat16 a word.
impl Blocks<16, 1> for Bf16 {
    type Head = ();

    #[inline(always)]
    fn head<L: Lanes>(_: L, _: &[u32; 16]) {}

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, (): &(), block: &[u32; 16], runs: &mut R) {
        runs.take(l, 0, [l.brain(part(block, 0)), l.brain(part(block, 8))]);
    }
}

/// Two half floats a word.
impl Blocks<16, 1> for F16 {
    type Head = ();

    #[inline(always)]
    fn head<L: Lanes>(_: L, _: &[u32; 16]) {}

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, (): &(), block: &[u32; 16], runs: &mut R) {
        runs.take(l, 0, [l.halves(part(block, 0)), l.halves(part(block, 8))]);
    }
}

/// d f16; 32 × i8 q: y = q·d.
impl Blocks<9, 1> for Q8_0 {
    type Head = f32;
    const IN_PAIRS: bool = true;

    #[inline(always)]
    fn head<L: Lanes>(l: L, block: &[u32; 9]) -> f32 {
        l.half_pair(block[0])[0]
    }

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, d: &f32, block: &[u32; 9], runs: &mut R) {
        runs.take(l, 0, scaled(l, l.signed(Self::codes(l, block, 0)), [*d; 2]));
    }
}

/// d f16; 16 bytes of two nibbles q (low: elements 0-15, high: 16-31): y = (q-8)·d.
impl Blocks<5, 1> for Q4_0 {
    type Head = f32;

    #[inline(always)]
    fn head<L: Lanes>(l: L, block: &[u32; 5]) -> f32 {
        l.half_pair(block[0])[0]
    }

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, d: &f32, block: &[u32; 5], runs: &mut R) {
        let q = l.centred(Self::codes(l, block, 0), 8);
        runs.take(l, 0, scaled(l, q, [*d; 2]));
    }
}

/// d f16, m f16; nibbles q as in Q4_0: y = q·d + m.
impl Blocks<5, 1> for Q4_1 {
    type Head = [f32; 2];
    const IN_PAIRS: bool = true;

    #[inline(always)]
    fn head<L: Lanes>(l: L, block: &[u32; 5]) -> [f32; 2] {
        l.half_pair(block[0])
    }

    #[inline(always)]
    fn heads<L: Lanes>(l: L, blocks: &[[u32; 5]], out: &mut [[f32; 2]]) {
        first_halves(l, blocks, out);
    }

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, &[d, m]: &[f32; 2], block: &[u32; 5], runs: &mut R) {
        let (levels, q) = (l.levels(d, m), part(block, 1));
        runs.take(l, 0, [l.low(levels, q), l.high(levels, q)]);
    }
}

/// d f16; one word of fifth bits (bit i for element i); nibbles as in Q4_0: y = (q-16)·d with 5-bit
/// q.
impl Blocks<6, 1> for Q5_0 {
    type Head = f32;

    #[inline(always)]
    fn head<L: Lanes>(l: L, block: &[u32; 6]) -> f32 {
        l.half_pair(block[0])[0]
    }

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, d: &f32, block: &[u32; 6], runs: &mut R) {
        let q = l.centred(Self::codes(l, block, 0), 16);
        runs.take(l, 0, scaled(l, q, [*d; 2]));
    }
}

/// d f16, m f16; fifth bits and nibbles as in Q5_0: y = q·d + m.
impl Blocks<6, 1> for Q5_1 {
    type Head = [f32; 2];

    #[inline(always)]
    fn head<L: Lanes>(l: L, block: &[u32; 6]) -> [f32; 2] {
        l.half_pair(block[0])
    }

    #[inline(always)]
    fn heads<L: Lanes>(l: L, blocks: &[[u32; 6]], out: &mut [[f32; 2]]) {
        first_halves(l, blocks, out);
    }

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, &[d, m]: &[f32; 2], block: &[u32; 6], runs: &mut R) {
        runs.take(l, 0, shifted(l, l.unsigned(Self::codes(l, block, 0)), [d; 2], [m; 2]));
    }
}

/// d·scale and -dmin·min of the eight runs. Word 0 has d and dmin, words 1 to 3 have the scales and
/// minima ([`Lanes::six_bits`]).
#[inline(always)]
fn six_bit_pairs<L: Lanes>(l: L, block: &[u32]) -> [f32; LANES] {
    let [d, dmin] = l.half_pair(block[0]);
    let [factors, _] = l.regrouped(l.splat(d), l.splat(-dmin));
    let [small, _] = l.unsigned(l.six_bits(part(block, 0)));
    let mut pairs = [0.0; LANES];
    l.store(l.mul(small, factors), &mut pairs);
    pairs
}

/// d f16, dmin f16; 12 bytes of eight 6-bit pairs (scale, min); 128 bytes of nibbles q.
/// Run j: y = (d·scale_j)·q - dmin·min_j.
/// Even runs are low nibbles; odd runs are the high nibbles of the same bytes.
impl Blocks<36, 8> for Q4K {
    type Head = [f32; LANES];
    const IN_PAIRS: bool = true;

    #[inline(always)]
    fn head<L: Lanes>(l: L, block: &[u32; 36]) -> [f32; LANES] {
        six_bit_pairs(l, block)
    }

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, pairs: &[f32; LANES], block: &[u32; 36], runs: &mut R) {
        for pair in 0..4 {
            let run = 2 * pair;
            let q = [part(block, 4 + 4 * run), part(block, 8 + 4 * run)];
            let low = l.levels(pairs[run], pairs[8 + run]);
            runs.take(l, run, [l.low(low, q[0]), l.low(low, q[1])]);
            let high = l.levels(pairs[run + 1], pairs[9 + run]);
            runs.take(l, run + 1, [l.high(high, q[0]), l.high(high, q[1])]);
        }
    }
}

/// d f16, dmin f16; pairs as in Q4_K; 32 bytes of fifth bits (bit j of each for run j); 128 bytes
/// of nibbles as in Q4_K.
/// Run j: y = (d·scale_j)·q - dmin·min_j with 5-bit q.
impl Blocks<44, 8> for Q5K {
    type Head = [f32; LANES];

    #[inline(always)]
    fn head<L: Lanes>(l: L, block: &[u32; 44]) -> [f32; LANES] {
        six_bit_pairs(l, block)
    }

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, pairs: &[f32; LANES], block: &[u32; 44], runs: &mut R) {
        for run in 0..8 {
            let q = l.unsigned(Self::codes(l, block, run));
            runs.take(l, run, shifted(l, q, [pairs[run]; 2], [pairs[8 + run]; 2]));
        }
    }
}

/// 128 bytes of low nibbles; 64 bytes of high bit pairs; 16 × i8 scale; d f16:
/// y = (d·scale)·(q-32).
/// Each half of 128 elements has four runs. Run r takes nibble r/2 of byte (r%2)·32+l and bit pair
/// r of byte l. Every 16 elements share a scale.
impl Blocks<53, 8> for Q6K {
    type Head = [f32; LANES];
    const IN_PAIRS: bool = true;

    #[inline(always)]
    fn head<L: Lanes>(l: L, block: &[u32; 53]) -> [f32; LANES] {
        let [scales, _] = l.signed(sixteen(l, part(block, 48)));
        factors(l, scales, l.half_pair(block[52])[0])
    }

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, factors: &[f32; LANES], block: &[u32; 53], runs: &mut R) {
        for run in 0..8 {
            let q = l.centred(Self::codes(l, block, run), 32);
            runs.take(l, run, scaled(l, q, halves(factors, run)));
        }
    }
}

/// 16 bytes of two nibbles (scale: low, min: high); 64 bytes of bit pairs q; d f16, dmin f16.
/// Each half of 128 elements has four runs of 32: run r takes bit pair r of the half's 32 bytes.
/// Every 16 elements share a scale and a min: y = (d·scale)·q - dmin·min.
impl Blocks<21, 8> for Q2K {
    /// d·scale, then -dmin·min.
    type Head = [[f32; LANES]; 2];
    const IN_PAIRS: bool = true;

    #[inline(always)]
    fn head<L: Lanes>(l: L, block: &[u32; 21]) -> [[f32; LANES]; 2] {
        let [d, dmin] = l.half_pair(block[20]);
        let [scales, minima] = l.unsigned(l.nibbles(part(block, 0)));
        [factors(l, scales, d), factors(l, minima, -dmin)]
    }

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, [scales, minima]: &[[f32; LANES]; 2], block: &[u32; 21], runs: &mut R) {
        for run in 0..8 {
            let q = l.unsigned(Self::codes(l, block, run));
            runs.take(l, run, shifted(l, q, halves(scales, run), halves(minima, run)));
        }
    }
}

/// 32 bytes of third bits (bit j of each for run j); 64 bytes of bit pairs as in Q2_K; 16 6-bit
/// scales in 12 bytes; d f16. Every 16 elements share a scale: y = (d·(scale-32))·(q-4) with 3-bit
/// q.
/// Scale s has its low bits in a nibble of byte s%8 (low for s < 8) and its high bits in bit pair
/// s/4 of byte 8+s%4.
impl Blocks<28, 8> for Q3K {
    type Head = [f32; LANES];

    #[inline(always)]
    fn head<L: Lanes>(l: L, block: &[u32; 28]) -> [f32; LANES] {
        let [a, b, high] = *part(block, 24);
        let low = [a, b, a >> 4, b >> 4];
        let words: [u32; 4] = std::array::from_fn(|i| low[i] & 0x0f0f_0f0f | (high >> (2 * i) & 0x0303_0303) << 4);
        let [scales, _] = l.signed(l.minus(sixteen(l, &words), 32));
        factors(l, scales, l.half_pair(block[27])[0])
    }

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, factors: &[f32; LANES], block: &[u32; 28], runs: &mut R) {
        for run in 0..8 {
            let q = l.centred(Self::codes(l, block, run), 4);
            runs.take(l, run, scaled(l, q, halves(factors, run)));
        }
    }
}

/// d f16; nibbles as in Q4_0, each the number of a level: y = level·d.
impl Blocks<5, 1> for Iq4Nl {
    type Head = f32;

    #[inline(always)]
    fn head<L: Lanes>(l: L, block: &[u32; 5]) -> f32 {
        l.half_pair(block[0])[0]
    }

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, d: &f32, block: &[u32; 5], runs: &mut R) {
        runs.take(l, 0, scaled(l, l.signed(Self::codes(l, block, 0)), [*d; 2]));
    }
}

/// One byte e; nibbles as in Q4_0, each an FP4 number v: y = 2v·2^(e-128).
impl Blocks<5, 1> for Mxfp4 {
    type Head = f32;

    #[inline(always)]
    fn head<L: Lanes>(_: L, block: &[u32; 5]) -> f32 {
        let e = block[0] & 0xff;
        f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (e - 1) << 23 })
    }

    #[inline(always)]
    fn each<L: Lanes, R: Runs<L>>(l: L, power: &f32, block: &[u32; 5], runs: &mut R) {
        runs.take(l, 0, scaled(l, l.signed(Self::codes(l, block, 0)), [*power; 2]));
    }
}
